//! BERT's basic tokenizer: from a text to lower-case words without accents, and punctuation.

use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;

/// The words of a text, in order; each punctuation mark is one.
pub fn words(text: &str) -> Vec<String> {
    let clean = text.chars().filter_map(clean).flat_map(apart);
    let plain = clean.nfd().filter(|c| !c.is_mark_nonspacing());
    let mut words = Vec::new();
    let mut word = String::new();
    for c in plain.flat_map(char::to_lowercase) {
        if !c.is_whitespace() && !is_punctuation(c) {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if is_punctuation(c) {
            words.push(c.into());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// White space as spaces; nothing for control characters and what stands for lost ones.
fn clean(c: char) -> Option<char> {
    match c {
        '\t' | '\n' | '\r' => Some(' '),
        '\0' | '\u{fffd}' => None,
        _ if c.is_other() => None,
        _ if c.is_whitespace() => Some(' '),
        _ => Some(c),
    }
}

/// Chinese characters with spaces around them.
fn apart(c: char) -> impl Iterator<Item = char> {
    let space = is_chinese(c).then_some(' ');
    space.into_iter().chain([c]).chain(space)
}

/// The blocks of CJK unified and compatibility ideographs that BERT knows.
fn is_chinese(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x20000..=0x2A6DF
            | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF
            | 0xF900..=0xFAFF
            | 0x2F800..=0x2FA1F
    )
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_punctuation()
}
