//! Text while it is being written: ids in one at a time, whole characters out.

use super::tokenizer::Tokenizer;
use super::utf8::Utf8Decoder;

/// Turns ids into text as they come. The concatenated output is what [`Tokenizer::decode`] makes of all the ids; no
/// piece of it ends within a character. The work for an id is that for its own bytes, however many came before.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    skip_special: bool,
    decoder: Utf8Decoder,
}

impl Tokenizer {
    /// A decoder for one generation. `skip_special` is as for [`Tokenizer::decode`].
    pub fn stream(&self, skip_special: bool) -> StreamDecoder {
        StreamDecoder { tokenizer: self.clone(), skip_special, decoder: Utf8Decoder::default() }
    }
}

impl StreamDecoder {
    /// Takes the next id and returns the characters that it completes: often one word, nothing while a character is
    /// incomplete. Ids without a token are passed over.
    pub fn push(&mut self, id: u32) -> String {
        if self.skip_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        self.decoder.push(self.tokenizer.bytes(id))
    }

    /// Ends the text: a character that is still incomplete becomes U+FFFD. The decoder can then be used again.
    pub fn finish(&mut self) -> String {
        self.decoder.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::synth::Spec;

    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Spec::tiny().write(dir.path()).expect("a valid spec");
        Tokenizer::from_dir(dir.path()).expect("a valid tokenizer")
    });

    fn check(ids: &[u32], skip_special: bool) {
        let mut stream = TOKENIZER.stream(skip_special);
        let mut text = String::new();
        for &id in ids {
            text += &stream.push(id);
        }
        text += &stream.finish();
        assert_eq!(text, TOKENIZER.decode(ids, skip_special));
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        #[test]
        fn equals_the_full_decode(
            ids in prop::collection::vec(prop_oneof![0..530u32, 94..256u32, any::<u32>()], 0..80),
            skip_special: bool,
        ) {
            check(&ids, skip_special);
        }

        #[test]
        fn text_comes_back(text: String) {
            // Through plain encoding, which normalises; the decoded text is then what went in.
            let ids = TOKENIZER.encode_plain(&text).expect("any text can be encoded");
            check(&ids, true);
            let text = TOKENIZER.decode(&ids, true);
            prop_assert_eq!(TOKENIZER.encode_plain(&text).expect("likewise"), ids);
        }
    }

    #[test]
    fn characters_come_whole() {
        let ids = TOKENIZER.encode("a😀é").expect("a short text");
        let mut stream = TOKENIZER.stream(false);
        let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
        assert!(ids.len() > 3, "the emoji takes several tokens, else this shows nothing");
        assert_eq!(pieces.concat(), "a😀é");
        assert_eq!(pieces.iter().filter(|piece| !piece.is_empty()).count(), 3);
    }

    #[test]
    fn a_special_token_inside_a_character_is_as_in_the_full_decode() {
        let byte = |byte: u8| {
            let id = (0..256).find(|&id| TOKENIZER.bytes(id) == [byte]);
            id.expect("every byte has an id")
        };
        let end = TOKENIZER.id("<|im_end|>").expect("an added token");
        for skip_special in [false, true] {
            check(&[byte(0xC3), end, byte(0xA9)], skip_special);
            check(&[byte(0xE4), byte(0xB8), byte(b'x'), byte(0xF0)], skip_special);
        }
    }
}
