//! Numbers and their words.

use num2words::Num2Words;

use super::grammar::{Grammar, Numerals};

/// A number as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Number<'a> {
    pub(super) text: &'a str,
    /// Its digits before the decimal mark, without what groups them.
    pub(super) whole: String,
    pub(super) fraction: Option<&'a str>,
    /// Whether its digits are grouped.
    grouped: bool,
}

/// The number at the beginning of a text. None where it is more than a number: "1.2.3", "10:30".
pub(super) fn parse<'a>(text: &'a str, grammar: &Grammar) -> Option<Number<'a>> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut end = digits(text);
    let mut whole = text[..end].to_owned();
    let mut grouped = false;
    if end == 0 {
        return None;
    }
    if end <= 3 && !whole.starts_with('0') {
        while let Some(mark) =
            text[end..].chars().next().filter(|mark| grammar.groups.contains(mark))
        {
            let group = &text[end + mark.len_utf8()..];
            if digits(group) != 3 {
                break;
            }
            whole += &group[..3];
            end += mark.len_utf8() + 3;
            grouped = true;
        }
    }
    let mut fraction = None;
    if let Some(rest) = text[end..].strip_prefix(grammar.decimal)
        && digits(rest) > 0
    {
        fraction = Some(&rest[..digits(rest)]);
        end = text.len() - rest.len() + digits(rest);
    }
    let mut rest = text[end..].chars();
    if rest.next().is_some_and(|c| ".,:/".contains(c))
        && rest.next().is_some_and(|c| c.is_ascii_digit())
    {
        return None;
    }
    Some(Number { text: &text[..end], whole, fraction, grouped })
}

impl Number<'_> {
    pub(super) fn is_one(&self) -> bool {
        self.whole == "1" && self.fraction.is_none()
    }

    /// What is before the decimal mark.
    pub(super) fn without_fraction(&self) -> Self {
        let decimals = self.fraction.map_or(0, |fraction| fraction.len() + 1);
        Self { text: &self.text[..self.text.len() - decimals], fraction: None, ..self.clone() }
    }

    /// The order of two numbers, roughly.
    pub(super) fn value(&self) -> f64 {
        format!("{}.{}", self.whole, self.fraction.unwrap_or("0")).parse().unwrap_or(f64::MAX)
    }

    /// Whether it is written as a year that English reads in two halves.
    pub(super) fn is_year(&self) -> bool {
        let year = self.whole.len() == 4 && !self.grouped && self.fraction.is_none();
        year && self.whole.parse().is_ok_and(|year: u64| matches!(year, 1100..2000 | 2010..2100))
    }

    /// Its words. In a language without numerals it is as written. None where no words are certain.
    pub(super) fn words(&self, grammar: &Grammar, feminine: Option<bool>) -> Option<String> {
        if grammar.numerals == Numerals::Digits {
            return Some(self.text.to_owned());
        }
        let whole = match feminine {
            _ if self.fraction.is_some() => cardinal(&self.whole, grammar, Some(false))?,
            feminine => cardinal(&self.whole, grammar, feminine)?,
        };
        let Some(fraction) = self.fraction else { return Some(whole) };
        let zeros = fraction.len() - fraction.trim_start_matches('0').len();
        let mut words = vec![whole, grammar.point.to_owned()];
        match grammar.numerals {
            // "virgule quatorze", "virgule zéro cinq"
            Numerals::French if fraction.len() <= 3 && zeros < fraction.len() => {
                words.extend(vec!["zéro".to_owned(); zeros]);
                words.push(cardinal(&fraction[zeros..], grammar, Some(false))?);
            }
            _ => words.push(spelled(fraction, grammar)?),
        }
        Some(words.join(" "))
    }

    /// Its words where nothing says what it counts.
    pub(super) fn alone(&self, grammar: &Grammar) -> Option<String> {
        if grammar.numerals == Numerals::English && self.is_year() {
            return year(&self.whole, grammar);
        }
        if self.fraction.is_none()
            && (self.whole.len() > 1 && self.whole.starts_with('0') || self.whole.len() > 15)
        {
            return spelled(&self.whole, grammar);
        }
        self.words(grammar, None)
    }
}

/// Words of a whole number of at most 15 digits. In French one that ends with "un" has a gender; none is known where
/// it is `None`.
pub(super) fn cardinal(digits: &str, grammar: &Grammar, feminine: Option<bool>) -> Option<String> {
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 15)?;
    let words = Num2Words::new(number);
    match grammar.numerals {
        Numerals::Digits => Some(digits.to_owned()),
        Numerals::English => words.lang(num2words::Lang::English).to_words().ok(),
        Numerals::French => {
            let gendered = number % 10 == 1 && !matches!(number % 100, 11 | 71 | 91);
            if gendered && feminine.is_none() {
                return None;
            }
            let words = words.lang(num2words::Lang::French);
            let words = if feminine == Some(true) { words.prefer("feminine") } else { words };
            words.to_words().ok()
        }
    }
}

/// Words of a number's digits, one by one.
pub(super) fn spelled(digits: &str, grammar: &Grammar) -> Option<String> {
    let words: Option<Vec<String>> = (0..digits.len())
        .map(|at| digits.get(at..=at).and_then(|digit| cardinal(digit, grammar, Some(false))))
        .collect();
    Some(words?.join(" "))
}

/// Words of a year.
pub(super) fn year(digits: &str, grammar: &Grammar) -> Option<String> {
    match grammar.numerals {
        Numerals::English => {
            let year: u64 = digits.parse().ok().filter(|_| digits.len() <= 4)?;
            let words = Num2Words::new(year).lang(num2words::Lang::English).year().to_words();
            words.ok().map(|words| words.replace("oh-", "oh "))
        }
        _ => cardinal(digits, grammar, Some(false)),
    }
}

/// Words of an ordinal of English, or of French without gender ("deuxième").
pub(super) fn ordinal(digits: &str, grammar: &Grammar) -> Option<String> {
    let number: u64 = digits.parse().ok().filter(|&number| number > 0 && digits.len() <= 9)?;
    match grammar.numerals {
        Numerals::Digits => None,
        Numerals::English => {
            Num2Words::new(number).lang(num2words::Lang::English).ordinal().to_words().ok()
        }
        Numerals::French => {
            let words = cardinal(digits, grammar, Some(false))?;
            let plural = ["vingts", "cents", "millions"].iter().any(|end| words.ends_with(end));
            let stem = if plural { &words[..words.len() - 1] } else { &words };
            Some(match stem {
                stem if stem.ends_with("cinq") => format!("{stem}uième"),
                stem if stem.ends_with("neuf") => format!("{}vième", &stem[..stem.len() - 1]),
                stem => format!("{}ième", stem.strip_suffix('e').unwrap_or(stem)),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::grammar::grammar;
    use super::*;
    use crate::text::Language;

    #[test]
    fn what_is_more_than_a_number_is_none() {
        let english = grammar(Language::English).expect("a grammar");
        let whole = |text| parse(text, english).map(|number| (number.whole, number.fraction));
        assert_eq!(whole("1,234,567.89 x"), Some(("1234567".into(), Some("89"))));
        assert_eq!(whole("1,23"), None);
        assert_eq!(whole("5."), Some(("5".into(), None)));
        assert_eq!(whole("5, 6"), Some(("5".into(), None)));
        for text in ["1.2.3", "10:30", "1/2", "1,2,3", ".5", "x"] {
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn english_numbers_are_counted_right() {
        let english = grammar(Language::English).expect("a grammar");
        for (digits, words) in [
            ("0", "zero"),
            ("21", "twenty-one"),
            ("100", "one hundred"),
            ("1000000", "one million"),
            (
                "999999999999999",
                "nine hundred ninety-nine trillion nine hundred ninety-nine billion nine hundred \
                                 ninety-nine million nine hundred ninety-nine thousand nine hundred and ninety-nine",
            ),
        ] {
            assert_eq!(cardinal(digits, english, None).as_deref(), Some(words));
        }
        assert_eq!(cardinal("1000000000000000", english, None), None);
    }

    #[test]
    fn french_ordinals_are_those_of_the_grammar() {
        let french = grammar(Language::French).expect("a grammar");
        for (digits, words) in [
            ("2", "deuxième"),
            ("4", "quatrième"),
            ("5", "cinquième"),
            ("9", "neuvième"),
            ("19", "dix-neuvième"),
            ("21", "vingt et unième"),
            ("30", "trentième"),
            ("80", "quatre-vingtième"),
            ("100", "centième"),
            ("200", "deux centième"),
            ("1000", "millième"),
        ] {
            assert_eq!(ordinal(digits, french).as_deref(), Some(words));
        }
    }
}
