//! Encoding while a text is being written: text in as it comes, ids out as soon as nothing can change them.

use std::fmt;
use std::ops::Range;

use tokenizers::{NormalizerWrapper, OffsetReferential, OffsetType, PreTokenizedString};
use unicode_normalization_alignments::char::canonical_combining_class;
use unicode_normalization_alignments::{IsNormalized, is_nfc_quick};

use super::tokenizer::Tokenizer;
use crate::error::Result;

/// What a text is tried with to see which of its words are final. A split expression decides with one or two
/// characters of what follows: it goes on with a word, a number, a run of spaces, line ends or signs, or adds a
/// contraction. Here is one of each kind, and the last letters of each contraction.
const CONTINUATIONS: [&str; 14] =
    ["", "a", "A", "e", "l", "s", "'s", "1", " ", "\n", "!", "/", "文", "\u{30D}"];

/// Bytes taken at a time, so that a long push costs no more than many short ones.
const STRIDE: usize = 256;

/// One token of a text, and where in the text it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The token.
    pub id: u32,
    /// Its bytes in the text as it was given. A token that is a part of a character has the place of the whole, and a
    /// composed character that of all it was composed of. Otherwise tokens follow on each other without a gap.
    pub text: Range<usize>,
}

/// Turns text into ids while the text grows, taking it as text alone like [`Tokenizer::encode_plain`]; all the ids
/// together are what that function gives for the whole text.
///
/// Held back is what later text could change: the last word, the spaces before it where they may still go with it,
/// and a character that may still be composed with one to come. What is final is found by trial: the words that stay
/// as they are whatever kind of text follows, and after which the rest splits in the same way by itself. A tokenizer
/// for which this never holds (one that normalises other than by NFC, or that puts a space before a text) gives all
/// its ids at the end.
///
/// A push costs time in proportion to its own length and to what is held back, however long the text is by then.
#[derive(Clone)]
pub struct LiveEncoder {
    tokenizer: Tokenizer,
    held: String,
    /// Bytes of the text whose ids are given out.
    done: usize,
}

/// A word as the pre-tokenizer gives it: where it is in the text, and what the merges are applied to.
type Word = (Range<usize>, String);

impl Tokenizer {
    /// An encoder for one text that is still being written.
    pub fn live(&self) -> LiveEncoder {
        LiveEncoder { tokenizer: self.clone(), held: String::new(), done: 0 }
    }

    /// As [`Tokenizer::encode_plain`], with the place of every token. The places cover the text without a gap.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_plain_pieces(&self, text: &str) -> Result<Vec<Piece>> {
        let words = self.words(text)?;
        let mut pieces = self.pieces(words, usize::MAX)?;
        close_gaps(&mut pieces, 0..text.len());
        Ok(pieces)
    }

    /// The tokens of the first `count` words.
    fn pieces(&self, words: PreTokenizedString, count: usize) -> Result<Vec<Piece>> {
        let encoding = self.merge(words, OffsetType::Byte)?;
        let words = encoding.get_word_ids().iter().copied();
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets()).zip(words);
        Ok(tokens
            .take_while(|(_, word)| word.is_none_or(|word| (word as usize) < count))
            .map(|((&id, &(start, end)), _)| Piece { id, text: start..end })
            .collect())
    }

    /// Whether text after a character that begins anew under NFC has no influence on what is before it.
    fn normalises_in_place(&self) -> bool {
        matches!(self.normalizer(), None | Some(NormalizerWrapper::NFC(_)))
    }
}

impl LiveEncoder {
    /// Takes the next part of the text, cut anywhere, and returns the tokens that have become final.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]. The tokens of the words before are lost with it: the text cannot go on.
    pub fn push(&mut self, text: &str) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.ceil_char_boundary(STRIDE));
            self.held.push_str(part);
            self.settle(&mut pieces)?;
            rest = after;
        }
        Ok(pieces)
    }

    /// Ends the text and returns the tokens of what was held back. What is pushed afterwards is a text of its own,
    /// but for its places, which go on counting.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn finish(&mut self) -> Result<Vec<Piece>> {
        let mut pieces = self.tokenizer.encode_plain_pieces(&self.held)?;
        self.give_out(&mut pieces, self.held.len());
        Ok(pieces)
    }

    /// Bytes of text whose ids are not given out yet.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Moves what is final from `held` to `pieces`.
    fn settle(&mut self, pieces: &mut Vec<Piece>) -> Result<()> {
        let (words, end) = self.settled()?;
        if words > 0 {
            let mut new = self.tokenizer.pieces(self.tokenizer.words(&self.held)?, words)?;
            self.give_out(&mut new, end);
            pieces.append(&mut new);
        }
        Ok(())
    }

    /// How many words are final, and where they end.
    fn settled(&self) -> Result<(usize, usize)> {
        let limit = if self.tokenizer.normalises_in_place() { last_start(&self.held) } else { 0 };
        let words = self.split(0, "")?;
        let mut count = words.iter().take_while(|(place, _)| place.end <= limit).count();
        if count == 0 {
            return Ok((0, 0));
        }
        let mut continued = Vec::new();
        for continuation in CONTINUATIONS {
            let other = self.split(0, continuation)?;
            count = words[..count].iter().zip(&other).take_while(|(a, b)| a == b).count();
            if count == 0 {
                return Ok((0, 0));
            }
            continued.push(other);
        }
        let end = words[count - 1].0.end;
        for (continuation, whole) in CONTINUATIONS.iter().zip(continued) {
            if self.split(end, continuation)? != whole[count..] {
                return Ok((0, 0));
            }
        }
        Ok((count, end))
    }

    /// The words of what is held back from byte `from` on, followed by `continuation`.
    fn split(&self, from: usize, continuation: &str) -> Result<Vec<Word>> {
        let words = self.tokenizer.words(&[&self.held[from..], continuation].concat())?;
        let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let word = |(text, (start, end), _): (&str, _, _)| (from + start..from + end, text.into());
        Ok(splits.into_iter().map(word).collect())
    }

    /// Makes places in the whole text of those in the first `end` bytes of `held`, and lets go of these.
    fn give_out(&mut self, pieces: &mut [Piece], end: usize) {
        close_gaps(pieces, 0..end);
        for piece in pieces {
            piece.text = piece.text.start + self.done..piece.text.end + self.done;
        }
        self.held.drain(..end);
        self.done += end;
    }
}

impl fmt::Debug for LiveEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveEncoder").field("held", &self.held).finish_non_exhaustive()
    }
}

/// Where the last character begins that neither changes nor is changed by any that comes before it under NFC, which
/// is one with combining class 0 and NFC_Quick_Check=Yes (Unicode Standard Annex 15, "Detecting normalization forms").
fn last_start(text: &str) -> usize {
    let starts = |c: char| {
        canonical_combining_class(c) == 0 && is_nfc_quick(std::iter::once(c)) == IsNormalized::Yes
    };
    text.char_indices().rev().find(|&(_, c)| starts(c)).map_or(0, |(at, _)| at)
}

/// Lets every token reach as far as the next one begins, and all of them from end to end of `whole`: the library gives
/// a composed character the place of its base alone. Tokens that begin together, being parts of one character, end
/// together.
fn close_gaps(pieces: &mut [Piece], whole: Range<usize>) {
    if let Some(first) = pieces.first_mut() {
        first.text.start = whole.start;
    }
    let (mut start, mut end) = (whole.end, whole.end);
    for piece in pieces.iter_mut().rev() {
        if piece.text.start < start {
            (start, end) = (piece.text.start, start);
        }
        piece.text = start..end;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::synth::Spec;

    /// Tokenizers with the splits of several model families, Qwen's first.
    static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
        let regex = |pattern: &str| {
            json!({
                "type": "Split", "pattern": { "Regex": pattern },
                "behavior": "Isolated", "invert": false,
            })
        };
        let bytes = |use_regex: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
                "use_regex": use_regex,
            })
        };
        let sequence = |parts: &[Value]| {
            let parts = [parts, &[bytes(false)]].concat();
            json!({ "type": "Sequence", "pretokenizers": parts })
        };
        // As in tokenizer.json of Llama 3, gpt-oss, DeepSeek V3, StarCoder and GPT-2.
        let llama = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let gpt_oss = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let deepseek = [
            r"\p{N}{1,3}",
            r"[一-龥぀-ゟ゠-ヿ]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ];
        let digits = json!({ "type": "Digits", "individual_digits": true });
        let mut prefixed = bytes(true);
        prefixed["add_prefix_space"] = true.into();
        let nfc = json!({ "type": "NFC" });
        [
            (nfc.clone(), None),
            (nfc.clone(), Some(sequence(&[regex(llama)]))),
            (Value::Null, Some(sequence(&[regex(gpt_oss)]))),
            (Value::Null, Some(sequence(&deepseek.map(regex)))),
            (
                Value::Null,
                Some(json!({ "type": "Sequence", "pretokenizers": [digits, bytes(true)] })),
            ),
            (Value::Null, Some(bytes(true))),
            (nfc, Some(prefixed)),
            (json!({ "type": "NFKC" }), None),
        ]
        .into_iter()
        .map(|(normalizer, pre_tokenizer)| edited(normalizer, pre_tokenizer))
        .collect()
    });

    /// The tiny tokenizer with another normaliser and, if given, another way to split.
    fn edited(normalizer: Value, pre_tokenizer: Option<Value>) -> Tokenizer {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Spec::tiny().write(dir.path()).expect("a valid spec");
        let file = dir.path().join("tokenizer.json");
        let text = fs::read_to_string(&file).expect("the file just written");
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        json["normalizer"] = normalizer;
        if let Some(pre_tokenizer) = pre_tokenizer {
            json["pre_tokenizer"] = pre_tokenizer;
        }
        fs::write(&file, json.to_string()).expect("room");
        Tokenizer::from_dir(dir.path()).expect("a valid tokenizer")
    }

    fn qwen() -> &'static Tokenizer {
        &TOKENIZERS[0]
    }

    /// Pushes `text` cut at `cuts` (clipped to character boundaries) and compares with the whole.
    fn check(tokenizer: &Tokenizer, text: &str, cuts: &[usize]) {
        let mut cuts: Vec<usize> =
            cuts.iter().map(|&cut| text.floor_char_boundary(cut.min(text.len()))).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut live = tokenizer.live();
        let mut pieces = Vec::new();
        for cut in cuts.windows(2) {
            pieces.extend(live.push(&text[cut[0]..cut[1]]).expect("any text"));
            let given = pieces.last().map_or(0, |piece: &Piece| piece.text.end);
            assert_eq!(given + live.held(), cut[1]);
        }
        pieces.extend(live.finish().expect("any text"));
        assert_eq!(live.held(), 0);
        let ids: Vec<u32> = pieces.iter().map(|piece| piece.id).collect();
        assert_eq!(ids, tokenizer.encode_plain(text).expect("any text"), "{text:?} at {cuts:?}");
        assert_eq!(pieces, tokenizer.encode_plain_pieces(text).expect("any text"));
        check_places(text, &pieces);
    }

    fn check_places(text: &str, pieces: &[Piece]) {
        let mut last = 0..0;
        for piece in pieces {
            assert!(text.get(piece.text.clone()).is_some_and(|part| !part.is_empty()));
            // The parts of a character have one place.
            assert!(piece.text == last || piece.text.start == last.end, "{text:?}: {pieces:?}");
            last = piece.text.clone();
        }
        assert_eq!(last.end, text.len());
    }

    /// Texts of what makes words begin, end and change.
    fn texts() -> impl Strategy<Value = String> {
        let bits = prop::sample::select(vec![
            "a",
            "e",
            "o",
            "I",
            "Ab",
            "hello",
            " world",
            "'",
            "'ll",
            "'s",
            "l",
            "re",
            "ve",
            "'D",
            "ſ",
            "é",
            "e\u{301}",
            "\u{301}",
            "\u{323}",
            "\u{30D}",
            "\u{345}",
            "\u{31B}",
            "\u{338}",
            "=",
            "\u{1100}",
            "\u{1161}",
            "\u{11A8}",
            "가",
            "\u{9C7}",
            "\u{9BE}",
            "か",
            "\u{3099}",
            "ｶ",
            "\u{FF9E}",
            "क",
            "ा",
            "\u{93C}",
            "\r",
            "\n",
            "\r\n",
            " ",
            "  ",
            "\t",
            "\u{3000}",
            "\u{A0}",
            "你",
            "好",
            "。",
            "，",
            "😀",
            "👩‍💻",
            "🇩🇪",
            "1",
            "23",
            "½",
            ".",
            "!",
            "...",
            "/",
            "<|im_end|>",
            "\u{0}",
            "\u{FEFF}",
        ]);
        prop_oneof![
            4 => prop::collection::vec(bits, 0..24).prop_map(|bits| bits.concat()),
            1 => any::<String>(),
        ]
    }

    proptest! {
        #[test]
        fn equals_encoding_the_whole(
            text in texts(),
            cuts in prop::collection::vec(0..80usize, 0..20),
            which in 0..8usize,
        ) {
            check(&TOKENIZERS[which], &text, &cuts);
        }

        #[test]
        fn equals_encoding_the_whole_for_qwen(
            text in texts(),
            cuts in prop::collection::vec(0..80usize, 0..20),
        ) {
            check(qwen(), &text, &cuts);
        }
    }

    #[test]
    fn every_cut_of_what_is_hard() {
        for text in [
            "it'll we're I'D o'clock 'll",
            "a\r\n\r\n  b \n \n c   d\n\n",
            "e\u{30D}\u{323}x a\u{302}\u{323}=\u{338}",
            "你好，世界。\u{1100}\u{1161}\u{11A8}",
            "x = 12345.678!!\n\n// end",
        ] {
            for tokenizer in TOKENIZERS.iter() {
                check(tokenizer, text, &(0..text.len()).collect::<Vec<_>>());
                for cut in 0..text.len() {
                    check(tokenizer, text, &[cut]);
                }
            }
        }
    }

    #[test]
    fn a_word_is_given_out_when_the_next_begins() {
        let mut live = qwen().live();
        let mut after = |text: &str| {
            live.push(text).expect("any text");
            live.held()
        };
        assert_eq!(after("Hello"), "Hello".len());
        assert_eq!(after(" "), " ".len());
        assert_eq!(after("wor"), " wor".len());
        assert_eq!(after("ld"), " world".len());
        assert_eq!(after("."), ".".len());
        assert_eq!(after("\n"), ".\n".len());
        assert_eq!(after("1"), "1".len());
        assert_eq!(after("你好"), "你好".len());
        assert_eq!(after("，"), "，".len());
        // A line end may take the spaces before it, and those after it up to another.
        assert_eq!(after("a"), "，a".len());
        assert_eq!(after("\n  "), "\n  ".len());
        assert_eq!(after("x"), " x".len());
    }

    #[test]
    fn the_work_is_that_of_what_is_held_back() {
        let mut live = qwen().live();
        for _ in 0..2_000 {
            live.push(" word").expect("any text");
            assert!(live.held() <= " word".len());
        }
        // One push of as much text, likewise.
        live.push(&" word, word".repeat(2_000)).expect("any text");
        assert!(live.held() <= " word".len());
    }

    #[test]
    fn a_text_after_the_end_is_another() {
        let mut live = qwen().live();
        live.push("Hel").expect("any text");
        live.finish().expect("any text");
        assert!(live.push("lo").expect("any text").is_empty());
        let rest = live.finish().expect("any text");
        let ids: Vec<u32> = rest.iter().map(|piece| piece.id).collect();
        assert_eq!(ids, qwen().encode_plain("lo").expect("any text"));
        assert_eq!((rest[0].text.start, rest[rest.len() - 1].text.end), (3, 5));
        assert!(live.finish().expect("nothing is left").is_empty());
    }
}
