//! From the deltas of a language model to pieces that are spoken.

use super::blocks::Blocks;
use super::chunk::{Chunker, Cut, End};
use super::inline;
use super::language::Language;
use super::normal;
use super::origin::Origin;
use super::sentence;

/// How a reply is cut into pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkOptions {
    /// The first piece ends with its first clause, or with the word that makes it this long, in characters of an
    /// alphabet (one of Chinese, Japanese or Korean counts for two). Default: 30.
    pub first_chars: usize,
    /// Later pieces are sentences; one that gets longer than this is cut after a clause, else after a word.
    /// Default: 200.
    pub later_chars: usize,
    /// What is said of a block of code. Default: nothing.
    pub code: CodeBlocks,
}

/// What is said of a block of code.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CodeBlocks {
    /// Nothing.
    #[default]
    Skip,
    /// These words, "code omitted" say.
    Say(String),
}

impl Default for ChunkOptions {
    fn default() -> Self {
        Self { first_chars: 30, later_chars: 200, code: CodeBlocks::default() }
    }
}

/// Something to be spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The words, some of them pronounceable. Those of all pieces, one after the other, are the whole of what is
    /// spoken of the reply, so a piece begins with a space where one is due.
    pub spoken: String,
    /// Where they are in the reply.
    pub origin: Origin,
    /// Whether a sentence ends with it.
    pub sentence_end: bool,
}

/// Turns the text of one reply, delta by delta, into pieces to be spoken.
///
/// What comes out does not depend on how the text is cut into deltas. Held back is what may still change: a sentence
/// that is not over, but in the first piece only a clause; never more than about [`ChunkOptions::later_chars`], or
/// than a kilobyte that no word ends in.
#[derive(Debug, Clone)]
pub struct Speaker {
    language: Language,
    reply: String,
    blocks: Blocks,
    chunker: Chunker,
    /// Where the next piece begins.
    start: usize,
    /// Whether the next piece begins with a space; `None` before the first one.
    space: Option<bool>,
    finished: bool,
}

impl Speaker {
    /// A speaker of one reply in a language.
    pub fn new(language: Language, options: ChunkOptions) -> Self {
        let ChunkOptions { first_chars, later_chars, code } = options;
        let code = match code {
            CodeBlocks::Skip => String::new(),
            CodeBlocks::Say(words) => words,
        };
        Self {
            language,
            reply: String::new(),
            blocks: Blocks::new(code),
            chunker: Chunker::new(language, first_chars, later_chars),
            start: 0,
            space: None,
            finished: false,
        }
    }

    /// Takes the next part of the reply, cut between any two characters, and returns the pieces that have become
    /// certain. Nothing is taken after [`Speaker::finish`].
    pub fn push(&mut self, delta: &str) -> Vec<Piece> {
        if self.finished {
            return Vec::new();
        }
        for c in delta.chars() {
            self.blocks.push(c, self.reply.len(), &mut self.chunker);
            self.reply.push(c);
        }
        self.pieces()
    }

    /// Ends the reply, and returns the rest of its pieces.
    pub fn finish(&mut self) -> Vec<Piece> {
        if !self.finished {
            self.finished = true;
            self.blocks.finish(&mut self.chunker);
            self.chunker.finish(self.reply.len());
        }
        self.pieces()
    }

    /// All deltas so far, as written.
    pub fn reply(&self) -> &str {
        &self.reply
    }

    fn pieces(&mut self) -> Vec<Piece> {
        let cuts = self.chunker.take_cuts();
        cuts.into_iter().filter_map(|cut| self.piece(&cut)).collect()
    }

    fn piece(&mut self, cut: &Cut) -> Option<Piece> {
        let plain = inline::plain(&cut.text);
        let mut words = normal::normal(&plain, self.language);
        let blanks = words.text.len() - words.text.trim_start().len();
        let due = self.space.map(|due| due || blanks > 0);
        if !words.text.contains(char::is_alphanumeric) {
            // It is a part of the next piece, as far as places go.
            self.space = due;
            return None;
        }
        let place = words.place(blanks);
        drop(words.take(blanks));
        while words.text.ends_with(' ') {
            words.pop();
        }
        let marked = sentence::has_mark(&words.text);
        let stop = cut.end == End::Block && !marked && !sentence::has_clause_mark(&words.text);
        if stop {
            let wide = words.text.chars().next_back().is_some_and(sentence::is_wide);
            let hangul = matches!(words.text.chars().next_back(), Some('\u{ac00}'..='\u{d7a3}'));
            words.push_words(if wide && !hangul { "。" } else { "." }, cut.place);
        }
        if due == Some(true) {
            words.push_front(' ', place);
        }
        self.space = Some(cut.end == End::Block);
        let origin = words.origin(self.start, cut.place);
        self.start = cut.place;
        let sentence_end = match cut.end {
            End::Open => false,
            End::Block => marked || stop,
            End::Sentence | End::Reply => true,
        };
        Some(Piece { spoken: words.text, origin, sentence_end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cut_at_word;
    use super::*;

    fn speak_in(deltas: &[&str], language: Language, options: ChunkOptions) -> Vec<Piece> {
        let mut speaker = Speaker::new(language, options);
        let mut pieces = Vec::new();
        for delta in deltas {
            pieces.extend(speaker.push(delta));
        }
        pieces.extend(speaker.finish());
        assert_eq!(speaker.reply(), deltas.concat());
        pieces
    }

    fn speak(text: &str) -> Vec<String> {
        let pieces = speak_in(&[text], Language::English, ChunkOptions::default());
        pieces.into_iter().map(|piece| piece.spoken).collect()
    }

    #[test]
    fn the_first_piece_is_a_clause_and_the_others_are_sentences() {
        assert_eq!(
            speak("Sure, I can help. Dr. Smith, who is in, has time. Does it suit you?"),
            ["Sure,", " I can help.", " Dr. Smith, who is in, has time.", " Does it suit you?"]
        );
        assert_eq!(
            speak("The very first of all the sentences is long and has no comma."),
            ["The very first of all the sentences", " is long and has no comma."]
        );
    }

    #[test]
    fn a_piece_comes_as_soon_as_it_is_certain() {
        let mut speaker = Speaker::new(Language::English, ChunkOptions::default());
        let spoken =
            |pieces: Vec<Piece>| pieces.into_iter().map(|piece| piece.spoken).collect::<String>();
        assert_eq!(spoken(speaker.push("Well, ")), "");
        assert_eq!(spoken(speaker.push("I")), "Well,");
        assert_eq!(spoken(speaker.push(" know. ")), "");
        assert_eq!(spoken(speaker.push("You")), " I know.");
        assert_eq!(spoken(speaker.push(" too.\n")), " You too.");
        let mut speaker = Speaker::new(Language::Chinese, ChunkOptions::default());
        assert_eq!(spoken(speaker.push("你好，")), "你好，");
        assert_eq!(spoken(speaker.push("世界。")), "世界。");
    }

    #[test]
    fn long_sentences_are_cut_after_clauses_then_words() {
        let options = ChunkOptions { first_chars: 20, later_chars: 40, code: CodeBlocks::Skip };
        let text = "Listen to me. This sentence goes on, as some do, for much longer than it should, they say. And \
                    this one goes on without any comma at all until the very end.";
        let pieces = speak_in(&[text], Language::English, options);
        let spoken: Vec<&str> = pieces.iter().map(|piece| piece.spoken.as_str()).collect();
        assert_eq!(
            spoken,
            [
                "Listen to me.",
                " This sentence goes on, as some do,",
                " for much longer than it should,",
                " they say.",
                " And this one goes on without any comma",
                " at all until the very end."
            ]
        );
        let ends: Vec<bool> = pieces.iter().map(|piece| piece.sentence_end).collect();
        assert_eq!(ends, [true, false, false, true, false, true]);
    }

    #[test]
    fn blocks_are_spoken_with_a_stop_each() {
        assert_eq!(
            speak(
                "# Soup\n\n- two **eggs**\n- one [onion](http://a.b)\n\n1. Boil\n2. Eat!\n\n> so\n> it goes\n---\nEnd"
            ),
            [
                "Soup.",
                " two eggs.",
                " one onion.",
                " one. Boil.",
                " two. Eat!",
                " so.",
                " it goes.",
                " End"
            ]
        );
        assert_eq!(speak("one line\ngoes on\nNew one"), ["one line goes on.", " New one"]);
        assert_eq!(
            speak("| a | b |\n|---|---|\n| c | d |\n\nend"),
            ["a,", " b.", " c, d.", " end"]
        );
        assert_eq!(speak("苹果\n香蕉"), ["苹果。", " 香蕉"]);
    }

    #[test]
    fn code_is_skipped_or_named() {
        let text = "Look:\n\n```rust\nfn main() {}\n``` x\n\n```\n\nThat is it.";
        assert_eq!(speak(text), ["Look:", " That is it."]);
        let options = ChunkOptions {
            code: CodeBlocks::Say("Code omitted".into()),
            ..ChunkOptions::default()
        };
        let pieces = speak_in(&[text], Language::English, options);
        let spoken: Vec<&str> = pieces.iter().map(|piece| piece.spoken.as_str()).collect();
        assert_eq!(spoken, ["Look:", " Code omitted.", " That is it."]);
        // What was heard before the code ends before it, and with the code's successor it is all there.
        assert_eq!(cut_at_word(text, pieces[0].origin.reply_at(5)), "Look:");
        assert_eq!(
            cut_at_word(text, pieces[2].origin.reply_at(5)),
            &text[..text.find("That").unwrap() + 4]
        );
        assert_eq!(speak("```\nnever ended"), [""; 0]);
    }

    #[test]
    fn places_are_those_of_the_reply() {
        let text = "See **[this page](http://a.b/c)**, it is 🎉 *good*. Really.";
        let pieces = speak_in(&[text], Language::English, ChunkOptions::default());
        let spoken: Vec<&str> = pieces.iter().map(|piece| piece.spoken.as_str()).collect();
        assert_eq!(spoken, ["See this page,", " it is good.", " Really."]);
        let heard = |piece: usize, words: &str| {
            let at = pieces[piece].spoken.find(words).expect("the words") + words.len();
            cut_at_word(text, pieces[piece].origin.reply_at(at))
        };
        assert_eq!(heard(0, "See"), "See");
        assert_eq!(heard(0, "page"), "See **[this page](http://a.b/c)**");
        assert_eq!(heard(1, "it"), "See **[this page](http://a.b/c)**, it");
        assert_eq!(heard(1, "good."), "See **[this page](http://a.b/c)**, it is 🎉 *good*.");
        assert_eq!(heard(2, "Really."), text);
    }

    #[test]
    fn what_cannot_be_spoken_is_no_piece() {
        assert_eq!(speak("  \n\n🎉 --- **\n\n"), [""; 0]);
        assert_eq!(speak("![](x.png) ... Yes."), ["Yes."]);
        assert_eq!(speak("Yes! 🎉"), ["Yes!"]);
    }

    #[test]
    fn nothing_is_held_for_ever() {
        for bit in [
            "x", "9", "-", "`", "[", "|", "#", "文", "\u{301}", "> ", "- ", "\n", "**", "http://",
            "e\u{301}", "1.",
        ] {
            let mut speaker = Speaker::new(Language::English, ChunkOptions::default());
            let mut spoken = 0;
            for _ in 0..20_000 {
                spoken += speaker.push(bit).iter().map(|piece| piece.spoken.len()).sum::<usize>();
            }
            let rest: usize = speaker.finish().iter().map(|piece| piece.spoken.len()).sum();
            assert!(rest < 4096, "{bit:?}: {spoken} bytes came, then {rest}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_depend_on_the_deltas_and_cover_the_reply(
            bits in prop::collection::vec(prop::sample::select(vec![
                "word", "Word", " ", " ", ". ", "! ", ", ", "\n", "\n\n", "你好", "。", "，", "「", "」", "e\u{301}", "👩‍💻", "1,000",
                "...", "\u{0}", "\u{301}", "**", "*", "_", "`", "```", "~~", "[a](", ")", "](", "[", "http://", "example.com",
                "$5", ".50", "3", "rd", "%", "km", "- ", "# ", "| ", "|", "---", "1. ", "> ", "<b>", "&amp;", "\\", "5 May",
                "2024", "-", ":30", "@", "Dr.", "e.g.", "—", "\r\n", "\t",
            ]), 0..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            language in prop::sample::select(Language::ALL.to_vec()),
            options in (1..40usize, 1..60usize, any::<bool>()),
        ) {
            let text = bits.concat();
            let code = if options.2 { CodeBlocks::Say("code".into()) } else { CodeBlocks::Skip };
            let options = ChunkOptions { first_chars: options.0, later_chars: options.1, code };
            let mut places: Vec<usize> =
                cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let deltas: Vec<&str> = places.windows(2).map(|ends| &text[ends[0]..ends[1]]).collect();
            let whole = speak_in(&[&text], language, options.clone());
            prop_assert_eq!(&whole, &speak_in(&deltas, language, options));
            let mut end = 0;
            for piece in &whole {
                prop_assert!(piece.spoken.contains(char::is_alphanumeric));
                prop_assert_eq!(piece.origin.start(), end);
                end = piece.origin.end();
                let mut last = piece.origin.start();
                for spoken in 0..=piece.spoken.len() {
                    let at = piece.origin.reply_at(spoken);
                    prop_assert!((last..=end).contains(&at), "{} in {:?}", spoken, piece);
                    last = at;
                }
                prop_assert_eq!(last, end);
            }
            prop_assert!(end <= text.len());
        }

        #[test]
        fn where_it_is_cut_does_not_change_what_is_said(
            words in prop::collection::vec(prop::sample::select(vec![
                "word,", "and", "Yes.", "$5 million", "3:30 pm", "5 km,", "on 5 May 2024", "May 5, 2024", "10-20 kg", "1,000",
                "3.5%", "at example.com.", "+1 555 123 4567", "**bold", "bold**", "[a link](http://b.c)", "Dr. Who", "n.5",
                "`code`", "1990s", "2nd", "—", "(so)", "snake_case", "U.S.", "2 + 2", "-5 °C", "1/2 cup",
            ]), 1..20),
            first_chars in 1..60usize,
        ) {
            let text = words.join(" ") + " end";
            let spoken = |first_chars| {
                let options = ChunkOptions { first_chars, later_chars: 10_000, code: CodeBlocks::Skip };
                let pieces = speak_in(&[&text], Language::English, options);
                pieces.into_iter().map(|piece| piece.spoken).collect::<String>()
            };
            prop_assert_eq!(spoken(first_chars), spoken(10_000));
        }

        #[test]
        fn any_text_is_taken(
            bits in prop::collection::vec(prop_oneof![
                "\\PC{0,6}", "[0-9.,:/ %$€£°hmkg–-]{1,12}", "[a-zA-Zà-ÿ.@/#*_`~|<>&;\\[\\]()]{1,8}", "\\p{Any}",
            ], 0..30),
            language in prop::sample::select(Language::ALL.to_vec()),
        ) {
            let text = bits.concat();
            let pieces = speak_in(&[&text], language, ChunkOptions { first_chars: 5, ..ChunkOptions::default() });
            let letters: Vec<&str> = text.split_inclusive(|_| true).collect();
            let options = ChunkOptions { first_chars: 5, ..ChunkOptions::default() };
            prop_assert_eq!(&pieces, &speak_in(&letters, language, options));
            for place in pieces.iter().flat_map(|piece| (0..=piece.spoken.len()).map(|at| piece.origin.reply_at(at))) {
                prop_assert!(place <= text.len());
                cut_at_word(&text, place);
            }
        }

        #[test]
        fn every_word_is_spoken_once(
            words in prop::collection::vec("[a-z]{1,12}", 1..80),
            marks in prop::collection::vec(prop::sample::select(vec![" ", ", ", ". ", "\n\n", "\n- ", " **", "** ", " — "]), 80),
        ) {
            let text: String = words.iter().zip(&marks).flat_map(|(word, mark)| [word.as_str(), mark]).collect();
            let pieces = speak_in(&[&text], Language::Auto, ChunkOptions::default());
            let spoken: String = pieces.iter().map(|piece| piece.spoken.as_str()).collect();
            let heard: Vec<&str> = spoken.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
            prop_assert_eq!(heard, words.iter().map(String::as_str).collect::<Vec<_>>());
            for piece in &pieces {
                // Each letter is where the letter is in the reply.
                for (at, c) in piece.spoken.char_indices().filter(|&(at, c)| at > 0 && c.is_alphanumeric()) {
                    prop_assert!(text[piece.origin.reply_at(at)..].starts_with(c));
                }
            }
        }
    }
}
