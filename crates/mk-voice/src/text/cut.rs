//! A reply that was cut short.

use unicode_segmentation::UnicodeSegmentation;

/// The reply up to `byte`, cut back to the end of the last whole word (Unicode Standard Annex 29), without markup that
/// is only opened there (`**`, `[`, a bullet, a fence). Never inside a grapheme; `byte` may be anywhere, also inside a
/// character or beyond the end.
pub fn cut_at_word(reply: &str, byte: usize) -> &str {
    let byte = reply.floor_char_boundary(byte);
    let mut end = 0;
    for (at, word) in reply.split_word_bound_indices() {
        if at + word.len() > byte {
            break;
        }
        end = at + word.len();
    }
    without_open_markup(&reply[..end])
}

/// Takes the markup away that a text ends with, unless it closes something: then it follows a word directly.
fn without_open_markup(mut text: &str) -> &str {
    loop {
        let trimmed = text.trim_end();
        let before = trimmed.trim_end_matches(is_markup);
        // `_` right after a letter is a part of the word.
        let joined = if before.ends_with(char::is_alphanumeric) { '_' } else { '\0' };
        let marks = trimmed[before.len()..].trim_start_matches(joined);
        let before = &trimmed[..trimmed.len() - marks.len()];
        let opens = before.is_empty()
            || before.ends_with(char::is_whitespace)
            || marks.ends_with(['[', '(', '<', '{'])
            || marks
                .starts_with(|mark| trimmed.matches(mark).count() % 2 == 1 && "*~`".contains(mark));
        if marks.is_empty() || !opens {
            return without_list_number(trimmed);
        }
        text = before;
    }
}

/// A number that begins an item says nothing without the item.
fn without_list_number(text: &str) -> &str {
    let line = text.rfind('\n').map_or(0, |at| at + 1);
    let number = text[line..].trim();
    let bare = number.strip_suffix(['.', ')']).unwrap_or("");
    let is_number = !bare.is_empty() && bare.len() <= 3 && bare.bytes().all(|c| c.is_ascii_digit());
    if is_number { text[..line].trim_end() } else { text }
}

/// Whether a character may be markup that opens something.
fn is_markup(c: char) -> bool {
    matches!(c, '*' | '_' | '~' | '`' | '#' | '>' | '|' | '[' | '(' | '<' | '{' | '-' | '+' | '•')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_words_go_and_whole_ones_stay() {
        for (text, kept) in [
            ("Hello wor|ld", "Hello"),
            ("Hello world|!", "Hello world"),
            ("Hello world!| How", "Hello world!"),
            ("Hello world! |How", "Hello world!"),
            ("don|'t", ""),
            ("it costs 3.|50", "it costs"),
            ("|Hello", ""),
            ("你好世|界", "你好世"),
            ("a e|\u{301}", "a"),
            ("Bonjour\u{202f}|!", "Bonjour"),
            ("a 👨‍👩|‍👧", "a"),
        ] {
            let byte = text.find('|').expect("a mark");
            assert_eq!(cut_at_word(&text.replace('|', ""), byte), kept, "{text:?}");
        }
        assert_eq!(cut_at_word("Hello.", 99), "Hello.");
        assert_eq!(cut_at_word("né", 2), "");
    }

    #[test]
    fn markup_that_only_opens_goes() {
        for (text, kept) in [
            ("Hello **^bold** x", "Hello"),
            ("Hello **bold**^ x", "Hello **bold**"),
            ("Hello **bo^ld** x", "Hello"),
            ("see [^the](page)", "see"),
            ("see [the](page)^ x", "see [the](page)"),
            ("One.\n\n- ^Two", "One."),
            ("One.\n\n## ^Two", "One."),
            ("One.\n1. ^Two", "One."),
            ("One.\n2. T^wo", "One."),
            ("Code:\n```^rust", "Code:"),
            ("well (^so", "well"),
            ("It is - ^well", "It is"),
            ("go `^x`", "go"),
            ("go `x`^ y", "go `x`"),
        ] {
            let byte = text.find('^').expect("a mark");
            assert_eq!(cut_at_word(&text.replace('^', ""), byte), kept, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_begins_the_reply_and_cuts_no_word(text in "\\PC{0,40}", byte in 0..80usize) {
            let kept = cut_at_word(&text, byte);
            prop_assert!(text.starts_with(kept) && kept.len() <= byte);
            // A no-break space and a `_` belong to the word before them, and may be taken off it.
            let cut = text.split_word_bound_indices().any(|(at, word)| {
                at < kept.len()
                    && at + word.len() > kept.len()
                    && word[kept.len() - at..].contains(|c: char| !c.is_whitespace() && !is_markup(c))
            });
            prop_assert!(!cut);
        }
    }
}
