//! What is said in other words than it is written: numbers, amounts, dates, addresses.
//!
//! Numbers become words in English and French, the two languages of ours that the crate num2words has; its decimals
//! and its French ordinals are wrong and not used. In the other languages digits stay as they are, the speech model
//! reads them, and so do they where a word could be wrong: "05/03/2024" in English, which is two dates; a French "1"
//! whose gender nobody knows. What is around them is said in words where the words do not depend on the grammar of
//! the sentence. Acronyms are left to the model. In [`Language::Auto`] nothing is changed but `_` between letters.

mod address;
mod amount;
mod date;
mod grammar;
mod number;

use super::language::Language;
use super::placed::Placed;
use super::sentence::is_wide;
use grammar::{Grammar, grammar};

/// How some bytes are read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reading {
    bytes: usize,
    words: String,
}

/// A text as it is read aloud in a language.
pub(super) fn normal(text: &Placed, language: Language) -> Placed {
    let grammar = grammar(language);
    let source = text.text.as_str();
    let mut out = Placed::default();
    let mut at = 0;
    while at < source.len() {
        if let Some(reading) = grammar.and_then(|grammar| read(source, at, grammar)) {
            out.push_words(&reading.words, text.place(at));
            at += reading.bytes;
            continue;
        }
        if let Some(bytes) = reference(&source[at..]) {
            while out.text.ends_with(' ') {
                out.pop();
            }
            at += bytes;
            continue;
        }
        let word = word(&source[at..]);
        for (i, c) in source[at..at + word].char_indices() {
            out.push(if c == '_' { ' ' } else { c }, text.place(at + i));
        }
        at += word;
    }
    out
}

/// Bytes of a reference to a note or source, `[1]` or `[^1]`, which is not read.
fn reference(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('[')?;
    let number = inside.strip_prefix('^').unwrap_or(inside);
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    let closed = (1..=3).contains(&digits) && number[digits..].starts_with(']');
    closed.then(|| text.len() - number.len() + digits + 1)
}

/// Bytes of the first word, with marks inside of it ("3.5.1", "and/or"), or of one character that is of no word. A
/// script without spaces and others make no word together.
fn word(text: &str) -> usize {
    let wide = text.starts_with(is_wide);
    let mut end = 0;
    for (at, c) in text.char_indices() {
        if c.is_alphanumeric() && is_wide(c) == wide {
            end = at + c.len_utf8();
        } else if at != end || at == 0 || !".,:/'’_-–".contains(c) {
            break;
        }
    }
    if end > 0 { end } else { text.chars().next().map_or(0, char::len_utf8) }
}

/// How what begins at a place is read, where it is read in other words.
fn read(text: &str, at: usize, grammar: &Grammar) -> Option<Reading> {
    let (before, rest) = text.split_at(at);
    if let Some(reading) = symbol(before, rest, grammar) {
        return Some(reading);
    }
    let last = before.chars().next_back();
    if last.is_some_and(|last| last.is_alphanumeric() && !is_wide(last)) {
        return None;
    }
    address::read(rest, grammar)
        .or_else(|| date::read(rest, grammar))
        .or_else(|| amount::read(before, rest, grammar))
}

/// A symbol that is a word.
fn symbol(before: &str, rest: &str, grammar: &Grammar) -> Option<Reading> {
    let symbol = rest.chars().next()?;
    let after = &rest[symbol.len_utf8()..];
    let reading = |words: String| Some(Reading { bytes: symbol.len_utf8(), words });
    let digit = |c: char| c.is_ascii_digit();
    // Between spaces, or before a number: "a & b", "~5", "#1".
    let free = before.is_empty() || before.ends_with(|c: char| c.is_whitespace() || c == '(');
    match symbol {
        '%' if before.ends_with(digit) && !grammar.percent.is_empty() => {
            return reading(grammar.percent.to_owned());
        }
        '/' if is_per(before, after, grammar) => return reading(format!(" {} ", grammar.per)),
        // "9 am–5 pm"
        '–' if before.ends_with(char::is_alphanumeric)
            && after.starts_with(digit)
            && !grammar.to.is_empty() =>
        {
            return reading(format!(" {} ", grammar.to));
        }
        '−' if before.ends_with(digit) && after.starts_with(digit) && !grammar.minus.is_empty() =>
        {
            return reading(format!(" {} ", grammar.minus));
        }
        _ => {}
    }
    let &(_, words) = grammar.symbols.iter().find(|&&(known, _)| known == symbol)?;
    match symbol {
        '+' if amount::phone(rest, grammar).is_some() => None,
        '#' | '~' | '≈' | '+' if free && after.starts_with(digit) => reading(format!("{words} ")),
        '#' | '~' => None,
        _ if free && after.starts_with(' ') => reading(words.to_owned()),
        '×' | '+' | '*' if before.ends_with(digit) && after.starts_with(digit) => {
            reading(format!(" {words} "))
        }
        _ => None,
    }
}

/// Whether a `/` is between an amount and what it is for: "$5/month".
fn is_per(before: &str, after: &str, grammar: &Grammar) -> bool {
    let sign = |c: char| c.is_ascii_digit() || "€$£%".contains(c);
    let word = after.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
    before.ends_with(sign) && grammar.per_what.contains(&word)
}

/// Whether a word or number is over before `rest`.
fn is_over(rest: &str) -> bool {
    !rest.starts_with(|c: char| c.is_alphanumeric() && !is_wide(c) || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, language: Language) -> String {
        let mut placed = Placed::default();
        text.char_indices().for_each(|(at, c)| placed.push(c, at));
        let read = normal(&placed, language);
        for at in 0..read.text.len() {
            assert!(
                read.place(at) < text.len()
                    && at.checked_sub(1).is_none_or(|b| read.place(b) <= read.place(at))
            );
        }
        read.text
    }

    /// Lines of `written | spoken`; what is spoken as it is written has no second part.
    fn check(language: Language, table: &str) {
        let mut wrong = Vec::new();
        for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with("//")) {
            let (written, spoken) = line.split_once(" | ").unwrap_or((line, line));
            let read = read(written, language);
            if read != spoken {
                wrong.push(format!("{written:?}: expected {spoken:?}, read {read:?}"));
            }
        }
        assert!(wrong.is_empty(), "{language}:\n{}", wrong.join("\n"));
    }

    #[test]
    fn texts_are_read_as_the_tables_say() {
        check(Language::English, include_str!("cases/english.txt"));
        check(Language::French, include_str!("cases/french.txt"));
        check(Language::German, include_str!("cases/german.txt"));
        check(Language::Spanish, include_str!("cases/spanish.txt"));
        check(Language::Italian, include_str!("cases/italian.txt"));
        check(Language::Portuguese, include_str!("cases/portuguese.txt"));
        check(Language::Russian, include_str!("cases/russian.txt"));
        check(Language::Chinese, include_str!("cases/chinese.txt"));
        check(Language::Japanese, include_str!("cases/japanese.txt"));
        check(Language::Korean, include_str!("cases/korean.txt"));
        check(Language::Auto, include_str!("cases/auto.txt"));
    }
}
