//! What a line of markdown is, by its beginning.

/// Most bytes of a beginning that are looked at; a longer one is of dashes or the like and says nothing.
pub(super) const MAX_BEGINNING: usize = 96;

/// What the beginning of a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Not enough is known.
    Open,
    /// The line is over and holds nothing to be spoken: empty, a rule, the line under a table's head.
    Empty,
    /// The first bytes, so many, are a mark (of a heading, an item, a quotation), and then it begins anew.
    Mark(usize),
    /// An item with a number, which is spoken.
    Numbered,
    /// A row of a table.
    Row,
    /// A fence around code, of so many of this character.
    Fence(char, usize),
    /// Text.
    Text,
}

/// Reads the beginning of a line. It ends with the line's end where that is known.
pub(super) fn beginning(line: &str) -> Beginning {
    let text = line.trim_start_matches([' ', '\t', '\u{a0}']);
    let indent = line.len() - text.len();
    let Some(first) = text.chars().next() else { return Beginning::Open };
    let same = text.chars().take_while(|&c| c == first).count();
    let rest = &text[same * first.len_utf8()..];
    let next = rest.chars().next();
    let blank = next.is_some_and(|c| c == ' ' || c == '\t');
    match first {
        '\n' | '\r' => Beginning::Empty,
        '>' => Beginning::Mark(indent + 1),
        '#' if same > 6 => Beginning::Text,
        '#' => match next {
            None => Beginning::Open,
            Some(' ' | '\t' | '\n' | '\r') => Beginning::Mark(indent + same),
            Some(_) => Beginning::Text,
        },
        '`' | '~' if next.is_none() => Beginning::Open,
        '`' | '~' if same >= 3 => Beginning::Fence(first, same),
        '-' | '*' | '+' | '•' | '‣' | '◦' | '▪' | '●' if same == 1 && blank => {
            Beginning::Mark(indent + first.len_utf8())
        }
        '|' | '-' | '*' | '_' | '=' | '+' | '•' => ruled(text),
        '[' => task(text).map_or(Beginning::Text, |task| match task {
            0 => Beginning::Open,
            bytes => Beginning::Mark(indent + bytes),
        }),
        '0'..='9' => numbered(text),
        _ => Beginning::Text,
    }
}

/// A line that may be a rule, a row, or the line under a table's head.
fn ruled(text: &str) -> Beginning {
    match text.find(|c: char| !"|-*_=+•: \t".contains(c)) {
        None if text.len() > MAX_BEGINNING => Beginning::Empty,
        None => Beginning::Open,
        Some(at) if text[at..].starts_with(['\n', '\r']) => Beginning::Empty,
        Some(_) if text.starts_with('|') => Beginning::Row,
        Some(_) => Beginning::Text,
    }
}

/// The length of the box of a task, 0 if that is not known yet.
fn task(text: &str) -> Option<usize> {
    let boxes = ["[ ] ", "[x] ", "[X] "];
    boxes.into_iter().find_map(|full| match () {
        () if text.starts_with(full) => Some(full.len()),
        () if full.starts_with(text) => Some(0),
        () => None,
    })
}

fn numbered(text: &str) -> Beginning {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = &text[digits..];
    if digits > 3 {
        return Beginning::Text;
    }
    match rest.chars().next() {
        None => Beginning::Open,
        Some('.' | ')') => match rest[1..].chars().next() {
            None => Beginning::Open,
            Some(' ' | '\t') => Beginning::Numbered,
            Some(_) => Beginning::Text,
        },
        Some(_) => Beginning::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_are_told_apart() {
        use Beginning::*;
        for (line, expected) in [
            ("", Open),
            ("  ", Open),
            ("  \n", Empty),
            ("a", Text),
            ("#", Open),
            ("## ", Mark(2)),
            ("#tag", Text),
            ("> ", Mark(1)),
            ("-", Open),
            ("  - ", Mark(3)),
            ("• ", Mark(3)),
            ("-5", Text),
            ("--- a", Text),
            ("---\n", Empty),
            ("***\n", Empty),
            ("**b", Text),
            ("* ", Mark(1)),
            ("|--", Open),
            ("|--|:-:|\n", Empty),
            ("| a", Row),
            ("``", Open),
            ("```", Open),
            ("```r", Fence('`', 3)),
            ("~~~~\n", Fence('~', 4)),
            ("`a", Text),
            ("~5", Text),
            ("[ ", Open),
            ("[x] ", Mark(4)),
            ("[a](b)", Text),
            ("12", Open),
            ("12.", Open),
            ("12. ", Numbered),
            ("1) ", Numbered),
            ("12.5", Text),
            ("2024", Text),
        ] {
            assert_eq!(beginning(line), expected, "{line:?}");
        }
        assert_eq!(beginning(&"-".repeat(MAX_BEGINNING + 1)), Empty);
    }
}
