//! Characters from bytes that come in pieces.

/// Makes text of UTF-8 that is cut anywhere. No piece of the text ends within a character; what is not UTF-8 becomes
/// U+FFFD, as with [`String::from_utf8_lossy`] of all the bytes.
#[derive(Debug, Clone, Default)]
pub struct Utf8Decoder {
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Utf8Decoder {
    /// Takes bytes and returns the characters that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let (mut text, mut taken) = (String::new(), 0);
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = taken + invalid.len() == self.pending.len();
            // Only at the end may more bytes still make a character of it.
            if invalid.is_empty() || (at_end && is_beginning(invalid)) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            taken += invalid.len();
        }
        self.pending.drain(..taken);
        text
    }

    /// Ends the text: a character that is still incomplete becomes U+FFFD. The decoder can then be used again.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// Whether more bytes could make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_comes_when_it_is_whole() {
        let mut decoder = Utf8Decoder::default();
        let pieces: Vec<String> = "Hé😀"
            .bytes()
            .map(|byte| decoder.push(&[byte]))
            .filter(|text| !text.is_empty())
            .collect();
        assert_eq!((pieces.concat().as_str(), pieces.len()), ("Hé😀", 3));
        assert_eq!(decoder.push(b"\xE4\xBD"), "");
        assert_eq!((decoder.finish().as_str(), decoder.finish().as_str()), ("\u{FFFD}", ""));
    }

    proptest! {
        #[test]
        fn pieces_make_what_the_whole_makes(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xF0), Just(0x9F), Just(0x98)], 0..40),
            size in 1usize..8,
        ) {
            let mut decoder = Utf8Decoder::default();
            let mut text = String::new();
            for piece in bytes.chunks(size) {
                text += &decoder.push(piece);
                prop_assert!(decoder.pending.len() <= 3);
            }
            text += &decoder.finish();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
