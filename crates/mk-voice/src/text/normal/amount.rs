//! Numbers and what they count.

use super::grammar::{Currency, Grammar, Numerals, Unit};
use super::number::{Number, cardinal, ordinal, parse, spelled};
use super::{Reading, is_over};
use crate::text::Language;

/// Signs of a negative number.
const MINUS: [char; 2] = ['-', '−'];

/// Signs between the ends of a range.
const TO: [char; 2] = ['-', '–'];

/// A number at the beginning of a text with what belongs to it, `before` which `text` stands.
pub(super) fn read(before: &str, text: &str, grammar: &Grammar) -> Option<Reading> {
    let free =
        before.is_empty() || before.ends_with(|c: char| c.is_whitespace() || "([".contains(c));
    if let Some(rest) = text.strip_prefix(MINUS).filter(|_| free && !grammar.minus.is_empty()) {
        let reading = positive(rest, grammar)?;
        let bytes = reading.bytes + text.len() - rest.len();
        return Some(Reading { bytes, words: format!("{} {}", grammar.minus, reading.words) });
    }
    positive(text, grammar)
}

fn positive(text: &str, grammar: &Grammar) -> Option<Reading> {
    phone(text, grammar)
        .or_else(|| money_first(text, grammar))
        .or_else(|| fraction(text, grammar))
        .or_else(|| counted(text, grammar))
}

/// A telephone number: `+1 555-123-4567`, `(555) 123-4567`, `555-123-4567`.
pub(super) fn phone(text: &str, grammar: &Grammar) -> Option<Reading> {
    if grammar.numerals == Numerals::Digits {
        return None;
    }
    let end =
        text.find(|c: char| !c.is_ascii_digit() && !"+-() ".contains(c)).unwrap_or(text.len());
    let number = text[..end].trim_end_matches(|c: char| !c.is_ascii_digit());
    let groups: Vec<&str> =
        number.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let digits: usize = lengths.iter().sum();
    let international = number.starts_with('+') && (8..=15).contains(&digits);
    let local =
        lengths == [3, 3, 4] && (number.starts_with('(') || number.matches('-').count() == 2);
    if !(international || local) || !is_over(&text[number.len()..]) || number.contains("  ") {
        return None;
    }
    let words: Option<Vec<String>> = groups.iter().map(|group| spelled(group, grammar)).collect();
    let plus = if international { "plus " } else { "" };
    Some(Reading { bytes: number.len(), words: format!("{plus}{}", words?.join(", ")) })
}

/// `$5.50`, `€5 million`, `$5-10`.
fn money_first(text: &str, grammar: &Grammar) -> Option<Reading> {
    let (currency, rest) = currency(text, grammar)?;
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let number = parse(rest, grammar)?;
    let after = &rest[number.text.len()..];
    let range = after.strip_prefix(TO).filter(|_| !grammar.to.is_empty());
    let (words, after) = match range {
        None => money(&number, after, currency, grammar)?,
        Some(to) => {
            let to = self::currency(to, grammar).map_or(to, |(_, rest)| rest);
            let second = parse(to, grammar).filter(|second| second.value() > number.value())?;
            let first = number.words(grammar, Some(currency.unit.feminine))?;
            let (words, after) = money(&second, &to[second.text.len()..], currency, grammar)?;
            (format!("{first} {} {words}", grammar.to), after)
        }
    };
    is_over(after).then(|| Reading { bytes: text.len() - after.len(), words })
}

/// The currency whose sign a text begins with.
fn currency<'a>(text: &'a str, grammar: &Grammar) -> Option<(&'static Currency, &'a str)> {
    let signs = grammar
        .currencies
        .iter()
        .flat_map(|currency| currency.unit.signs.iter().map(move |sign| (currency, *sign)));
    let found =
        signs.filter_map(|(currency, sign)| Some((currency, sign, text.strip_prefix(sign)?)));
    found.max_by_key(|(_, sign, _)| sign.len()).map(|(currency, _, rest)| (currency, rest))
}

/// An amount in words, and what of `after` does not belong to it.
fn money<'a>(
    number: &Number,
    after: &'a str,
    currency: &Currency,
    grammar: &Grammar,
) -> Option<(String, &'a str)> {
    let Unit { one, more, feminine, .. } = currency.unit;
    if let Some((magnitude, rest)) = magnitude(after, grammar) {
        let of = match grammar.of {
            "" => " ".to_owned(),
            "de" if grammar.language == Language::French && more.starts_with('e') => {
                " d'".to_owned()
            }
            of => format!(" {of} "),
        };
        return Some((
            format!("{} {magnitude}{of}{more}", number.words(grammar, Some(false))?),
            rest,
        ));
    }
    let unit = |number: &Number| if number.is_one() { one } else { more };
    let cents = number.fraction.filter(|fraction| fraction.len() == 2);
    let whole = number.without_fraction();
    let Some(cents) = cents else {
        return Some((
            format!("{} {}", number.words(grammar, Some(feminine))?, unit(number)),
            after,
        ));
    };
    if grammar.numerals == Numerals::Digits {
        // The digits before the mark, as they are written.
        let whole_text =
            &number.text[..number.text.len() - cents.len() - grammar.decimal.len_utf8()];
        let one = if number.whole == "1" { one } else { more };
        return Some(match cents.starts_with('0') || number.whole == "0" {
            true if cents == "00" => (format!("{whole_text} {one}"), after),
            true => (format!("{} {more}", number.text), after),
            false => (format!("{whole_text} {one}{}{cents}", grammar.and_cents), after),
        });
    }
    let amount = format!("{} {}", whole.words(grammar, Some(feminine))?, unit(&whole));
    let [cent, pieces] = currency.cent;
    let words = match cents {
        "00" => amount,
        _ if cent.is_empty() && (cents.starts_with('0') || number.whole == "0") => {
            format!("{} {more}", number.words(grammar, Some(feminine))?)
        }
        _ if cent.is_empty() => {
            format!("{amount}{}{}", grammar.and_cents, cardinal(cents, grammar, Some(feminine))?)
        }
        _ => {
            let cents = cents.trim_start_matches('0');
            let cents = format!(
                "{} {}",
                cardinal(cents, grammar, None)?,
                if cents == "1" { cent } else { pieces }
            );
            if number.whole == "0" {
                cents
            } else {
                format!("{amount}{}{cents}", grammar.and_cents)
            }
        }
    };
    Some((words, after))
}

/// A word for many after a number, "million" say, or its letter in English.
fn magnitude<'a>(after: &'a str, grammar: &Grammar) -> Option<(&'static str, &'a str)> {
    let written = after.strip_prefix(' ').and_then(|after| {
        let found =
            grammar.magnitudes.iter().filter_map(|word| Some((*word, after.strip_prefix(*word)?)));
        found.max_by_key(|(word, _)| word.len())
    });
    let letters = [
        ("bn", "billion"),
        ("B", "billion"),
        ("M", "million"),
        ("K", "thousand"),
        ("k", "thousand"),
    ];
    let short = || {
        let mut letters = letters.into_iter().filter(|_| grammar.language == Language::English);
        letters.find_map(|(letters, word)| Some((word, after.strip_prefix(letters)?)))
    };
    written.or_else(short).filter(|(_, rest)| is_over(rest))
}

/// `1/2` and the like, in English; others may be dates.
fn fraction(text: &str, grammar: &Grammar) -> Option<Reading> {
    let words = [
        ("1/2", "one half"),
        ("1/3", "one third"),
        ("2/3", "two thirds"),
        ("1/4", "one quarter"),
        ("3/4", "three quarters"),
        ("24/7", "twenty-four seven"),
    ];
    let (form, words) = words.into_iter().find(|(form, _)| text.starts_with(form))?;
    let rest = &text[form.len()..];
    let over = is_over(rest) && !rest.starts_with('/');
    (grammar.language == Language::English && over)
        .then(|| Reading { bytes: form.len(), words: words.to_owned() })
}

/// A number, alone or with what it counts, or a range.
fn counted(text: &str, grammar: &Grammar) -> Option<Reading> {
    let number = parse(text, grammar)?;
    let after = &text[number.text.len()..];
    if let Some((words, rest)) = suffixed(&number, after, grammar) {
        return Some(Reading { bytes: text.len() - rest.len(), words });
    }
    if let Some(rest) =
        after.strip_prefix(TO).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    {
        return range(text, &number, rest, grammar);
    }
    // "5'10" is a height, "5²" a square.
    let digit_next = after.chars().nth(1).is_some_and(|c| c.is_ascii_digit());
    let inside = after.starts_with(['\'', '’', '"', '″', '′']) && digit_next;
    if !is_over(after)
        || inside
        || after.starts_with(['°', '²', '³'])
        || grammar.numerals == Numerals::Digits
    {
        return None;
    }
    Some(Reading { bytes: number.text.len(), words: number.alone(grammar)? })
}

/// `10-20`, if it is one: neither a telephone number nor a score.
fn range(text: &str, first: &Number, rest: &str, grammar: &Grammar) -> Option<Reading> {
    let second = parse(rest, grammar)?;
    let after = &rest[second.text.len()..];
    let years = first.is_year() && second.is_year();
    let phone = !years && second.whole.len() >= 4 && first.whole.len() == 3;
    if grammar.to.is_empty()
        || phone
        || first.value() >= second.value()
        || first.whole.starts_with('0') && first.whole != "0"
    {
        return None;
    }
    if let Some((words, rest)) = suffixed(&second, after, grammar) {
        let words = format!("{} {} {words}", first.words(grammar, Some(false))?, grammar.to);
        return Some(Reading { bytes: text.len() - rest.len(), words });
    }
    if !is_over(after) || after.starts_with(['/', '-', '–']) {
        return None;
    }
    let words = format!("{} {} {}", first.alone(grammar)?, grammar.to, second.alone(grammar)?);
    Some(Reading { bytes: text.len() - after.len(), words })
}

/// A number with what follows it directly or after a space, and the rest.
fn suffixed<'a>(number: &Number, after: &'a str, grammar: &Grammar) -> Option<(String, &'a str)> {
    if let Some(found) = numbered(number, after, grammar) {
        return Some(found);
    }
    let near = after.strip_prefix([' ', '\u{a0}', '\u{202f}']).unwrap_or(after);
    if let Some(rest) = near.strip_prefix('%').filter(|_| !grammar.percent.is_empty()) {
        return Some((format!("{}{}", number.words(grammar, Some(false))?, grammar.percent), rest));
    }
    let units =
        grammar.units.iter().flat_map(|unit| unit.signs.iter().map(move |sign| (unit, *sign)));
    let mut units = units.filter_map(|(unit, sign)| Some((unit, sign, near.strip_prefix(sign)?)));
    let unit = units.find(|(_, sign, rest)| {
        // "5m" may be millions, "5G" a network.
        let sure = sign.chars().count() > 1 || *sign == "°" || near.len() < after.len();
        sure && is_over(rest) && !rest.starts_with(['/', '²', '³'])
    });
    if let Some((unit, _, rest)) = unit {
        let words = if number.is_one() { unit.one } else { unit.more };
        return Some((format!("{} {words}", number.words(grammar, Some(unit.feminine))?), rest));
    }
    // "5 €", "5 millions €"
    let (many, near) = match magnitude(after, grammar) {
        Some((_, rest)) => (after, rest.strip_prefix(' ').unwrap_or(rest)),
        None => ("", near),
    };
    let (currency, rest) =
        currency(near, grammar).filter(|(_, rest)| is_over(rest) && !rest.starts_with('-'))?;
    let (words, _) = money(number, many, currency, grammar)?;
    Some((words, rest))
}

/// Ordinals and decades: `3rd`, `1990s`, `1er`, `2e`.
fn numbered<'a>(number: &Number, after: &'a str, grammar: &Grammar) -> Option<(String, &'a str)> {
    if number.fraction.is_some() {
        return None;
    }
    let suffix = |suffixes: &[&str]| {
        let mut found = suffixes.iter().filter_map(|suffix| after.strip_prefix(suffix));
        found.find(|rest| is_over(rest))
    };
    match grammar.numerals {
        Numerals::English => {
            if let Some(rest) = suffix(&["st", "nd", "rd", "th"]) {
                return Some((ordinal(&number.whole, grammar)?, rest));
            }
            let rest = suffix(&["s", "'s", "’s"])?;
            let tens = number.whole.ends_with('0') && (number.whole.len() == 2 || number.is_year());
            let words = number.alone(grammar).filter(|_| tens)?;
            let plural = words
                .strip_suffix('y')
                .map_or_else(|| format!("{words}s"), |stem| format!("{stem}ies"));
            Some((plural, rest))
        }
        Numerals::French if number.whole == "1" => suffix(&["er"])
            .map(|rest| ("premier".to_owned(), rest))
            .or_else(|| suffix(&["re", "ère"]).map(|rest| ("première".to_owned(), rest))),
        Numerals::French => {
            let rest = suffix(&["e", "è", "ème", "ième"])?;
            Some((ordinal(&number.whole, grammar)?, rest))
        }
        Numerals::Digits => None,
    }
}
