//! Markdown inside of a line, and what else only the eye wants.

use pulldown_cmark::{Event, Options, Parser};

use super::placed::Placed;

/// Put before what is parsed, so that it is never taken for the beginning of a block.
const LEAD: &str = "x ";

/// A text without its markup: emphasis and code are their words, a link its text, an image what it shows; HTML, emoji
/// and control characters are nothing. A mark whose other half is in another piece goes too. Whitespace is one space.
pub(super) fn plain(text: &Placed) -> Placed {
    let begin = text.text.len() - text.text.trim_start().len();
    let source = format!("{LEAD}{}", &text.text[begin..]);
    // Where in the text a byte of the source is.
    let at = |byte: usize| byte.saturating_sub(LEAD.len()) + begin;
    let mut plain = Plain { text, out: Placed::default(), dropped: false };
    plain.add(0, begin);
    for (event, place) in Parser::new_ext(&source, Options::ENABLE_STRIKETHROUGH).into_offset_iter()
    {
        let from = place.start.max(LEAD.len());
        match event {
            Event::Text(words) if source[place.clone()] == *words => {
                let mut kept = from;
                for (i, c) in source[from..place.end].char_indices() {
                    let mark = from + i;
                    if is_mark(&source, mark, c) {
                        plain.add(at(kept), at(mark));
                        kept = mark + c.len_utf8();
                    }
                }
                plain.add(at(kept), at(place.end));
            }
            Event::Code(words) => match source[place.clone()].find(&*words) {
                Some(inside) => {
                    let start = at(place.start + inside);
                    plain.add(start, start + words.len());
                }
                None => plain.out.push_words(&words, text.place(at(from))),
            },
            // A character written as an entity.
            Event::Text(words) => plain.out.push_words(&words, text.place(at(from))),
            Event::InlineHtml(_) => plain.space(at(from)),
            _ => {}
        }
    }
    plain.out
}

struct Plain<'a> {
    text: &'a Placed,
    out: Placed,
    /// Whether the last character was dropped, so that the space before it may be one too many.
    dropped: bool,
}

impl Plain<'_> {
    /// Adds what is heard of bytes `from..to`.
    fn add(&mut self, from: usize, to: usize) {
        for (i, c) in self.text.text[from..to].char_indices() {
            let at = from + i;
            if c.is_whitespace() {
                self.space(at);
            } else if is_unheard(c) || c == '\u{200d}' && self.dropped {
                self.dropped = true;
            } else {
                if self.dropped
                    && matches!(c, '.' | ',' | '!' | '?' | ';' | ':')
                    && self.out.text.ends_with(' ')
                {
                    self.out.pop();
                }
                self.dropped = false;
                self.out.push(c, self.text.place(at));
            }
        }
    }

    fn space(&mut self, at: usize) {
        if !self.out.text.ends_with(' ') {
            self.out.push_words(" ", self.text.place(at));
        }
    }
}

/// Whether the character at a place of the source is a mark of emphasis or code that found no partner.
fn is_mark(source: &str, at: usize, c: char) -> bool {
    if !matches!(c, '*' | '_' | '~' | '`') {
        return false;
    }
    let before = source[..at].trim_end_matches(c).chars().next_back();
    let after = source[at..].trim_start_matches(c).chars().next();
    let blank = |side: Option<char>| side.is_none_or(char::is_whitespace);
    match c {
        _ if before == Some('\\') => false,
        '*' if blank(before) && blank(after) => false,
        '*' => !(before.is_some_and(char::is_numeric) && after.is_some_and(char::is_numeric)),
        '_' => {
            !(before.is_some_and(char::is_alphanumeric) && after.is_some_and(char::is_alphanumeric))
        }
        '~' => !after.is_some_and(char::is_numeric),
        _ => true,
    }
}

/// Whether nobody wants to hear a character: an emoji, an arrow, one that controls.
fn is_unheard(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{200b}' | '\u{2060}' | '\u{feff}' | '\u{20e3}' | '\u{2022}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{2190}'..='\u{21ff}' | '\u{2300}'..='\u{23ff}' | '\u{2500}'..='\u{27bf}'
            | '\u{2900}'..='\u{297f}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let mut placed = Placed::default();
        text.char_indices().for_each(|(at, c)| placed.push(c, at));
        let plain = plain(&placed);
        for (at, c) in plain.text.char_indices().filter(|(_, c)| c.is_alphanumeric()) {
            let place = plain.place(at);
            assert!(
                text[place..].starts_with(c) || text[place..].starts_with('&'),
                "{text:?} {at} {place}"
            );
        }
        plain.text
    }

    #[test]
    fn markup_goes_and_its_words_stay() {
        for (text, spoken) in [
            ("a **bold** and *it* and ~~gone~~ `code`", "a bold and it and gone code"),
            ("see [the page](https://a.b/c) now", "see the page now"),
            ("![a cat](cat.png)", "a cat"),
            ("a **half", "a half"),
            ("half** a", "half a"),
            ("2 * 3 and 2*3", "2 * 3 and 2*3"),
            ("snake_case and _it_", "snake_case and it"),
            ("R&amp;D &lt; x", "R&D < x"),
            ("a<br>b <b>c</b>", "a b c"),
            ("5 \\* 3", "5 * 3"),
            ("`a*b` *c*", "a*b c"),
            ("- no item, # no heading", "- no item, # no heading"),
            ("about ~5", "about ~5"),
        ] {
            assert_eq!(read(text).trim(), spoken, "{text:?}");
        }
    }

    #[test]
    fn emoji_are_not_heard() {
        for (text, spoken) in [
            ("Great 🎉! Yes 👨‍👩‍👧‍👦.", "Great! Yes."),
            ("go → on ✅ 1️⃣ 🇩🇪 x", "go on 1 x"),
            ("می\u{200c}خواهم ক্\u{200d}ষ", "می\u{200c}خواهم ক্\u{200d}ষ"),
        ] {
            assert_eq!(read(text), spoken, "{text:?}");
        }
    }
}
