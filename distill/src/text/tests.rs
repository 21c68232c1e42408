use serde::Deserialize;

use super::*;

const VOCABULARY: &str = include_str!("../../../tests/fixtures/tokenizer/vocab.txt");
const TOKENS: &str = include_str!("../../../tests/fixtures/tokenizer/tokens.json");

/// What the Hugging Face tokenizer makes of texts.
#[derive(Deserialize)]
struct Fixture {
    length: usize,
    cases: Vec<Case>,
    /// First and last of a run of characters, and what becomes of them inside a word.
    kinds: Vec<(u32, u32, String)>,
}

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn tokens_are_hugging_faces() {
    let tokenizer = WordPiece::parse(VOCABULARY).unwrap();
    let fixture: Fixture = serde_json::from_str(TOKENS).unwrap();
    assert!(fixture.cases.len() > 30);
    for case in fixture.cases {
        assert_eq!(tokenizer.tokens(&case.text), case.ids, "{:?}", case.text);
        let padded = tokenizer.encode(&case.text, fixture.length);
        assert_eq!(padded.len(), fixture.length);
        let shared = case.ids.len().min(fixture.length);
        assert_eq!(padded[..shared], case.ids[..shared]);
        assert!(padded[shared..].iter().all(|&id| id == PADDING));
    }
}

#[test]
fn characters_part_words_as_hugging_face_does() {
    let fixture: Fixture = serde_json::from_str(TOKENS).unwrap();
    let mut wrong = Vec::new();
    for (first, last, kind) in &fixture.kinds {
        for c in (*first..=*last).filter_map(char::from_u32) {
            let words = normalize::words(&format!("a{c}b"));
            let got = match words.len() {
                1 if words[0] == "ab" => "dropped",
                1 => "kept",
                2 => "space",
                3 => "cut",
                _ => "more",
            };
            if got != kind {
                wrong.push(format!("U+{:04X}: {got}, expected {kind}", u32::from(c)));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of them: {:?}",
        wrong.len(),
        &wrong[..wrong.len().min(40)]
    );
}

#[test]
fn vocabularies_that_are_none_are_refused() {
    let message = |text: &str| WordPiece::parse(text).unwrap_err().to_string();
    assert!(message("[PAD]\n[UNK]\na\nb\na\n").starts_with("line 5 of the vocabulary repeats `a`"));
    assert!(message("[PAD]\na\n").contains("no `[UNK]`"));
    assert!(message("[UNK]\n[PAD]\n").contains("no `[PAD]` in its first line"));
    let error = WordPiece::read("/nowhere/vocab.txt")
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nowhere/vocab.txt"), "{error}");
}
