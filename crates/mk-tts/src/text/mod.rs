//! Text on its way to the talker: cleaned, cut into segments, tokenised; whole, or while it is being written.

pub mod clean;
pub mod live;
pub mod position;
pub mod segments;

use std::ops::Range;

pub use clean::{CleanText, Cleaner, Origin, clean};
pub use live::{Arrival, LiveOptions, TextHandle, TextReader, TextWriter, live_text};
use mk_model::text::Tokenizer;
pub use position::{SpokenToken, Timeline, syllables};
pub use segments::MAX_TOKENS;

use crate::error::Result;

/// A part of a text that is spoken in one go.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its bytes in the caller's text.
    pub text: Range<usize>,
    /// Its tokens, one at least, with places in the caller's text.
    pub tokens: Vec<SpokenToken>,
}

/// What is spoken of `text`, in segments of at most `max_tokens` tokens ([`segments::split`]), one at least.
///
/// # Errors
/// [`Error::EmptyText`](crate::Error::EmptyText) where nothing is left to speak; those of the tokenizer.
pub fn prepare(tokenizer: &Tokenizer, text: &str, max_tokens: usize) -> Result<Vec<Segment>> {
    let CleanText { text, origin } = clean(tokenizer, text)?;
    let places = segments::split(tokenizer, &text, max_tokens)?;
    let segment = |place: Range<usize>| {
        let mut pieces = tokenizer.encode_plain_pieces(&text[place.clone()])?;
        for piece in &mut pieces {
            piece.text = piece.text.start + place.start..piece.text.end + place.start;
        }
        let tokens = live::spoken(pieces, &text, 0, &origin);
        Ok(Segment { text: origin.of(place), tokens })
    };
    places.into_iter().map(segment).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use mk_model::synth::Spec;

    use super::*;
    use crate::Error;

    /// Of the smallest synthetic checkpoint.
    pub(super) static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Spec::tiny().write(dir.path()).expect("a valid spec");
        Tokenizer::from_dir(dir.path()).expect("a valid tokenizer")
    });

    #[test]
    fn segments_are_places_of_the_callers_text() {
        let text = " One.<|im_end|> \u{0}Two e\u{301}. \n Three. ";
        let segments = prepare(&TOKENIZER, text, 1).expect("some text");
        assert!(segments.len() > 3);
        let segments = prepare(&TOKENIZER, text, 8).expect("some text");
        let spoken: Vec<&str> = segments.iter().map(|part| &text[part.text.clone()]).collect();
        assert_eq!(spoken, ["One.", "Two e\u{301}.", "Three."]);
        for segment in &segments {
            let tokens = &segment.tokens;
            let ends = (tokens[0].token.text.start, tokens[tokens.len() - 1].token.text.end);
            assert_eq!(ends, (segment.text.start, segment.text.end));
            let expected = syllables(&text[segment.text.clone()]);
            let found: f32 = tokens.iter().map(|token| token.syllables).sum();
            assert!((found - expected).abs() < 1e-4);
        }
        assert!(matches!(prepare(&TOKENIZER, " \u{0}", 8), Err(Error::EmptyText)));
    }
}
