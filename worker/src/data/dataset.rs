//! Examples as token ids: texts with a label, or windows of a corpus.

use std::path::Path;

use packfed_codec::Seed;

use super::{BadLine, BadLines, DataError, Labels, Record, held_out, skip};
use crate::text::{Marks, Tokenizer};

/// Token ids and, for classification, the index of their label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenExample {
    /// Token ids; at least one.
    pub ids: Vec<u32>,
    /// Index of the label; `None` where the next token is what is learned.
    pub label: Option<u32>,
}

/// What a worker trains on or is measured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// The examples, in the order of their lines.
    pub examples: Vec<TokenExample>,
    /// Records left out because their label is not in the list.
    pub skipped: u64,
}

/// A corpus is tokenized in pieces of whole lines of about so many bytes, for the tokenizer needs a hundred
/// times their memory.
const PIECE_BYTES: usize = 1 << 16;

impl Dataset {
    /// Records of a classification task, each cut to `tokens_max` tokens with its marks. `path` is for errors.
    ///
    /// # Errors
    /// At a record without a label or with one that is not in the list, where such lines stop; if nothing is left;
    /// if the tokenizer refuses a text.
    pub fn classification(
        path: &Path,
        records: &[Record],
        labels: &Labels,
        tokenizer: &Tokenizer,
        tokens_max: usize,
        bad_lines: BadLines,
    ) -> Result<Self, DataError> {
        let (mut examples, mut skipped) = (Vec::with_capacity(records.len()), 0);
        for record in records {
            let Some(label) = record.label.as_deref().and_then(|label| labels.index(label)) else {
                let found = record.label.as_ref().map_or("no label".into(), |label| format!("label {label:?}"));
                let expected = format!("one of the {} labels", labels.len());
                let (line, column) = (record.line, record.label_column);
                skip(BadLine { path: path.to_owned(), line, column, found, expected }, bad_lines, &mut skipped)?;
                continue;
            };
            let ids = tokenizer.encode(&record.text, Marks::Around, tokens_max)?;
            examples.push(TokenExample { ids, label: Some(label) });
        }
        if examples.is_empty() {
            return Err(DataError::Empty { path: path.to_owned(), skipped });
        }
        Ok(Self { examples, skipped })
    }

    /// Records of a language modelling task, one after another, cut into windows of `window` tokens. After each
    /// record stands the token that ends a text, if the model has one; the last window may be shorter, and is left
    /// out if it has a single token, which predicts nothing.
    ///
    /// # Errors
    /// If no window has two tokens, or the tokenizer refuses a text.
    pub fn windows(path: &Path, records: &[Record], tokenizer: &Tokenizer, window: usize) -> Result<Self, DataError> {
        let mut ids = Vec::new();
        for (n, record) in records.iter().enumerate() {
            for piece in pieces(&record.text, PIECE_BYTES) {
                ids.extend(tokenizer.encode(piece, Marks::None, usize::MAX)?);
            }
            if n + 1 < records.len() {
                ids.extend(tokenizer.special().eos.first());
            }
        }
        let windows = ids.chunks(window.max(2)).filter(|ids| ids.len() >= 2);
        let examples: Vec<_> = windows.map(|ids| TokenExample { ids: ids.to_vec(), label: None }).collect();
        if examples.is_empty() {
            return Err(DataError::Empty { path: path.to_owned(), skipped: 0 });
        }
        Ok(Self { examples, skipped: 0 })
    }

    /// Two sets: those to train on, and the `share` (0 to 1) that is held out. Which is which follows from the seed
    /// and from each example's own tokens and label, so others more or less move none.
    #[must_use]
    pub fn split(self, seed: &Seed, share: f64) -> (Self, Self) {
        let is_held_out = |example: &TokenExample| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&example.label.map_or(u64::MAX, u64::from).to_le_bytes());
            example.ids.iter().for_each(|id| {
                hasher.update(&id.to_le_bytes());
            });
            held_out(seed, hasher.finalize().as_bytes(), share)
        };
        let (held_out, training) = self.examples.into_iter().partition(is_held_out);
        (Self { examples: training, skipped: self.skipped }, Self { examples: held_out, skipped: 0 })
    }

    /// The number of tokens of every example.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        self.examples.iter().map(|example| example.ids.len()).collect()
    }
}

/// `text` in pieces of whole lines, each of at least `bytes` but for the last.
fn pieces(mut text: &str, bytes: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let from = bytes.min(text.len());
        let end = text.as_bytes()[from..].iter().position(|&b| b == b'\n').map_or(text.len(), |n| from + n + 1);
        let (piece, rest) = text.split_at(end);
        text = rest;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::{byte_level, word_piece};

    fn record(text: &str, label: Option<&str>, line: u64) -> Record {
        Record { text: text.into(), label: label.map(Into::into), line, label_column: 2 }
    }

    #[test]
    fn an_unknown_label_stops_with_its_place_or_is_counted() {
        let labels = Labels::new(vec!["yes".into(), "no".into()]).unwrap();
        let records = [record("my card", Some("no"), 2), record("card", Some("maybe"), 3), record("my", None, 4)];
        let make = |records: &[Record], bad_lines| {
            Dataset::classification(Path::new("d.csv"), records, &labels, &word_piece(), 3, bad_lines)
        };
        let dataset = make(&records, BadLines::Skip).unwrap();
        assert_eq!(dataset.examples, [TokenExample { ids: vec![2, 4, 3], label: Some(1) }], "cut inside its marks");
        assert_eq!(dataset.skipped, 2);
        let error = make(&records, BadLines::Stop).unwrap_err().to_string();
        assert_eq!(error, "d.csv:3:2: label \"maybe\", expected one of the 2 labels");
        let error = make(&records[2..], BadLines::Skip).unwrap_err().to_string();
        assert_eq!(error, "d.csv: there are no examples (1 lines skipped)");
    }

    #[test]
    fn windows_hold_every_token_once_and_texts_are_ended() {
        let tokenizer = byte_level("smollm");
        let records = [record("hello 12", None, 1), record("hello", None, 2)];
        let windows = Dataset::windows(Path::new("c.txt"), &records, &tokenizer, 3).unwrap();
        let ids: Vec<_> = windows.examples.iter().map(|example| example.ids.clone()).collect();
        let [space, one, two] = [b' ', b'1', b'2'].map(|b| u32::from(b) + 2);
        assert_eq!(ids, [vec![261, space, one], vec![two, 0, 261]], "0 ends a text");
        let one = Dataset::windows(Path::new("c.txt"), &records[1..], &tokenizer, 3);
        assert!(matches!(one, Err(DataError::Empty { .. })), "a single token predicts nothing");
    }

    #[test]
    fn pieces_are_whole_lines_and_together_the_text() {
        let text = "é\nlonger line\n\nx\nlast without an end";
        for bytes in [1, 2, 3, 5, 13, 100] {
            let pieces: Vec<&str> = pieces(text, bytes).collect();
            assert_eq!(pieces.concat(), text);
            let whole = pieces.iter().rev().skip(1).all(|piece| piece.ends_with('\n') && piece.len() > bytes);
            assert!(whole, "{bytes}: {pieces:?}");
        }
    }

    #[test]
    fn more_examples_move_no_other_to_the_other_side() {
        let example = |n: u32| TokenExample { ids: vec![n, n + 1], label: Some(n % 3) };
        let split = |range: std::ops::Range<u32>| {
            Dataset { examples: range.map(example).collect(), skipped: 0 }.split(&Seed::from_number(1), 0.25)
        };
        let (training, held_out) = split(100..300);
        assert_eq!(training.examples.len() + held_out.examples.len(), 200);
        assert!((25..75).contains(&held_out.examples.len()), "{}", held_out.examples.len());
        let (more_training, more_held_out) = split(0..400);
        assert!(training.examples.iter().all(|example| more_training.examples.contains(example)));
        assert!(held_out.examples.iter().all(|example| more_held_out.examples.contains(example)));
    }
}
