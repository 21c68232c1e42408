//! Texts as token ids: BERT's lower-casing WordPiece tokenizer (Devlin et al., 2018; Schuster & Nakajima,
//! 2012), equal to the Hugging Face one whose vocabulary is a `vocab.txt`.
//!
//! A text is normalised (control characters go, Chinese characters stand alone, accents go, lower case), cut
//! into words at white space and around punctuation, and each word into the longest pieces that the
//! vocabulary has, from the left; pieces inside a word begin with `##`.
//!
//! ```
//! use ampoule_distill::text::WordPiece;
//! let vocabulary = "[PAD]\n[UNK]\nsmil\n##ing\ncafe\n,\n";
//! let tokenizer = WordPiece::parse(vocabulary)?;
//! assert_eq!(tokenizer.tokens("Smiling, Café"), [2, 3, 5, 4]);
//! assert_eq!(tokenizer.encode("smiling cat", 4), [2, 3, 1, 0]);
//! # Ok::<(), ampoule_distill::text::VocabularyError>(())
//! ```

mod normalize;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Id of padding.
pub const PADDING: u32 = 0;

/// Words of more characters are unknown.
const LONGEST_WORD: usize = 100;

/// A tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordPiece {
    ids: HashMap<String, u32>,
    unknown: u32,
}

/// A vocabulary that is none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// The file cannot be read.
    #[error("cannot read the vocabulary {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line says what another said.
    #[error(
        "line {line} of the vocabulary repeats `{token}`; each line is one token, its number the id"
    )]
    Repeated {
        /// Its number, counted from 1.
        line: usize,
        /// The token.
        token: String,
    },
    /// A special token is not where it must be.
    #[error("the vocabulary has no `{token}`{place}; expected BERT's vocab.txt, one token a line")]
    Missing {
        /// Which.
        token: &'static str,
        /// Where.
        place: &'static str,
    },
}

impl WordPiece {
    /// Reads a vocabulary: one token a line, whose number, counted from 0, is the id. The first is `[PAD]`.
    ///
    /// # Errors
    ///
    /// [`VocabularyError`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, VocabularyError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| VocabularyError::Read {
            path: path.to_owned(),
            source,
        })?;
        WordPiece::parse(&text)
    }

    /// As [`WordPiece::read`], from memory.
    ///
    /// # Errors
    ///
    /// [`VocabularyError`].
    pub fn parse(text: &str) -> Result<Self, VocabularyError> {
        let mut ids = HashMap::new();
        for (line, token) in text.lines().enumerate() {
            if ids.insert(token.to_owned(), line as u32).is_some() {
                return Err(VocabularyError::Repeated {
                    line: line + 1,
                    token: token.to_owned(),
                });
            }
        }
        let find = |token, place| {
            let id = ids.get(token).copied();
            id.ok_or(VocabularyError::Missing { token, place })
        };
        let unknown = find("[UNK]", "")?;
        match find("[PAD]", " in its first line")? {
            PADDING => Ok(WordPiece { ids, unknown }),
            _ => Err(VocabularyError::Missing {
                token: "[PAD]",
                place: " in its first line",
            }),
        }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it has no tokens, which never is.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Id of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// The tokens of a text.
    pub fn tokens(&self, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        for word in normalize::words(text) {
            let start = tokens.len();
            if !self.pieces(&word, &mut tokens) {
                tokens.truncate(start);
                tokens.push(self.unknown);
            }
        }
        tokens
    }

    /// The first `length` tokens of a text, with padding behind them.
    pub fn encode(&self, text: &str, length: usize) -> Vec<u32> {
        let mut tokens = self.tokens(text);
        tokens.resize(length, PADDING);
        tokens
    }

    /// Adds the pieces of a word, and tells whether all of it is known.
    fn pieces(&self, word: &str, tokens: &mut Vec<u32>) -> bool {
        if word.chars().count() > LONGEST_WORD {
            return false;
        }
        let mut rest = word;
        let mut candidate = String::new();
        while !rest.is_empty() {
            let found = rest
                .char_indices()
                .map(|(at, c)| at + c.len_utf8())
                .rev()
                .find_map(|end| {
                    candidate.clear();
                    if rest.len() < word.len() {
                        candidate.push_str("##");
                    }
                    candidate.push_str(&rest[..end]);
                    Some((self.id(&candidate)?, end))
                });
            let Some((id, end)) = found else { return false };
            tokens.push(id);
            rest = &rest[end..];
        }
        true
    }
}
