//! Dates and times of day.

use super::grammar::Grammar;
use super::number::{cardinal, ordinal, year};
use super::{Reading, is_over};
use crate::text::Language;

/// A date or a time of day at the beginning of a text.
pub(super) fn read(text: &str, grammar: &Grammar) -> Option<Reading> {
    iso(text, grammar)
        .or_else(|| local(text, grammar))
        .or_else(|| month_first(text, grammar))
        .or_else(|| day_first(text, grammar))
        .or_else(|| time(text, grammar))
}

/// `2024-05-03`, everywhere.
fn iso(text: &str, grammar: &Grammar) -> Option<Reading> {
    let bytes = "2024-05-03".len();
    let date = text.get(..bytes)?;
    let [year, month, day] = parts(date, '-')?;
    if (year.len(), month.len()) != (4, 2) || !ends_number(&text[bytes..]) {
        return None;
    }
    Some(Reading { bytes, words: in_words(year, month, day, grammar)? })
}

/// `03.05.2024` or `03/05/2024`, where everybody writes the day first.
fn local(text: &str, grammar: &Grammar) -> Option<Reading> {
    let mark = match grammar.language {
        Language::German | Language::Russian => '.',
        Language::French | Language::Spanish | Language::Italian | Language::Portuguese => '/',
        _ => return None,
    };
    let bytes = text.find(|c: char| !c.is_ascii_digit() && c != mark).unwrap_or(text.len());
    let date = text[..bytes].trim_end_matches(mark);
    let [day, month, year] = parts(date, mark)?;
    if year.len() != 4 || !ends_number(&text[date.len()..]) {
        return None;
    }
    Some(Reading { bytes: date.len(), words: in_words(year, month, day, grammar)? })
}

fn parts(date: &str, mark: char) -> Option<[&str; 3]> {
    let mut parts = date.split(mark);
    let three = [parts.next()?, parts.next()?, parts.next()?];
    let whole = three.iter().all(|part| {
        !part.is_empty() && part.len() <= 4 && part.bytes().all(|c| c.is_ascii_digit())
    });
    (whole && parts.next().is_none()).then_some(three)
}

fn ends_number(rest: &str) -> bool {
    is_over(rest) && !rest.starts_with(['-', '/'])
}

fn in_words(year: &str, month: &str, day: &str, grammar: &Grammar) -> Option<String> {
    let number: usize = month.parse().ok()?;
    let name = grammar.months.get(number.checked_sub(1)?)?;
    let day = number_of_day(day)?;
    let digits = year.trim_start_matches('0');
    Some(match grammar.language {
        Language::English => {
            format!("{name} {}, {}", ordinal(&day, grammar)?, self::year(year, grammar)?)
        }
        Language::French if day == "1" => format!("premier {name} {}", self::year(year, grammar)?),
        Language::French => {
            format!(
                "{} {name} {}",
                cardinal(&day, grammar, Some(false))?,
                self::year(year, grammar)?
            )
        }
        Language::German => format!("{day}. {name} {digits}"),
        Language::Spanish | Language::Portuguese => format!("{day} de {name} de {digits}"),
        Language::Italian => format!("{day} {name} {digits}"),
        Language::Russian => format!("{day} {name} {digits} года"),
        Language::Chinese | Language::Japanese => format!("{digits}年{number}月{day}日"),
        Language::Korean => format!("{digits}년 {number}월 {day}일"),
        Language::Auto => return None,
    })
}

/// The digits of a day without zeros before them.
fn number_of_day(day: &str) -> Option<String> {
    let number: u32 = day.parse().ok().filter(|day| (1..=31).contains(day) && *day > 0)?;
    (day.len() <= 2).then(|| number.to_string())
}

/// English `May 5`: "May fifth".
fn month_first(text: &str, grammar: &Grammar) -> Option<Reading> {
    if grammar.language != Language::English {
        return None;
    }
    let (name, rest) = english_month(text, grammar)?;
    let rest = rest.strip_prefix(' ')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let day = number_of_day(&rest[..digits])?;
    let mut after = &rest[digits..];
    for suffix in ["st", "nd", "rd", "th"] {
        after = after.strip_prefix(suffix).unwrap_or(after);
    }
    let mut next = after.chars();
    let inside = matches!(next.next(), Some('.' | ':' | ',' | '-' | '–' | '/'))
        && next.next().is_some_and(|c| c.is_ascii_digit());
    // "In May 5 people came."
    let counts = after.strip_prefix(' ').is_some_and(|after| after.starts_with(char::is_lowercase));
    if !ends_number(after)
        || after.starts_with(['%', '°'])
        || inside
        || counts && matches!(name, "May" | "March")
    {
        return None;
    }
    Some(Reading {
        bytes: text.len() - after.len(),
        words: format!("{name} {}", ordinal(&day, grammar)?),
    })
}

/// English `5 May`: "the fifth of May".
fn day_first(text: &str, grammar: &Grammar) -> Option<Reading> {
    if grammar.language != Language::English {
        return None;
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let day = number_of_day(&text[..digits])?;
    let rest = text[digits..].strip_prefix(' ')?;
    let (name, after) = english_month(rest, grammar).filter(|(_, after)| is_over(after))?;
    let bytes = text.len() - after.len();
    Some(Reading { bytes, words: format!("the {} of {name}", ordinal(&day, grammar)?) })
}

/// The English month at the beginning of a text, "Jan." too, and what follows.
fn english_month<'a>(text: &'a str, grammar: &Grammar) -> Option<(&'static str, &'a str)> {
    if let Some(name) = grammar.months.iter().find(|name| text.starts_with(**name)) {
        return Some((name, &text[name.len()..]));
    }
    let short =
        ["Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sept", "Sep", "Oct", "Nov", "Dec"];
    let short = short.into_iter().find(|short| text.starts_with(short))?;
    let name = grammar.months.iter().find(|name| name.starts_with(short))?;
    let rest = &text[short.len()..];
    Some((name, rest.strip_prefix('.').unwrap_or(rest)))
}

/// `3:30 pm`, `15:30`, `15h30`.
fn time(text: &str, grammar: &Grammar) -> Option<Reading> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let hour: u32 = text[..digits].parse().ok().filter(|&hour| digits <= 2 && hour < 24)?;
    let rest = &text[digits..];
    match grammar.language {
        Language::English => english_time(text, digits, hour, grammar),
        Language::French => {
            let colon = rest.strip_prefix(':');
            let rest =
                colon.or_else(|| rest.strip_prefix('h')).or_else(|| rest.strip_prefix(" h"))?;
            let spaced = || rest.strip_prefix(' ').and_then(minute).filter(|_| colon.is_none());
            let (minute, after) = minute(rest).or_else(spaced).unwrap_or((0, rest));
            if !ends_number(after) || after.starts_with(':') || colon.is_some() && after == rest {
                return None;
            }
            let hours = cardinal(&hour.to_string(), grammar, Some(true))?;
            let plural = if hour < 2 { "heure" } else { "heures" };
            let minutes = match minute {
                0 => String::new(),
                minute => format!(" {}", cardinal(&minute.to_string(), grammar, Some(true))?),
            };
            Some(Reading {
                bytes: text.len() - after.len(),
                words: format!("{hours} {plural}{minutes}"),
            })
        }
        Language::German => {
            let (minute, after) = minute(rest.strip_prefix(':')?)?;
            if !ends_number(after) || after.starts_with(':') {
                return None;
            }
            let after = after.strip_prefix(" Uhr").unwrap_or(after);
            let words =
                if minute == 0 { format!("{hour} Uhr") } else { format!("{hour} Uhr {minute}") };
            Some(Reading { bytes: text.len() - after.len(), words })
        }
        _ => None,
    }
}

/// Two digits of minutes, and what follows.
fn minute(text: &str) -> Option<(u32, &str)> {
    let minute = text.get(..2).filter(|two| two.bytes().all(|c| c.is_ascii_digit()))?;
    let minute = minute.parse().ok().filter(|&minute| minute < 60)?;
    Some((minute, &text[2..])).filter(|(_, after)| !after.starts_with(|c: char| c.is_ascii_digit()))
}

fn english_time(text: &str, digits: usize, hour: u32, grammar: &Grammar) -> Option<Reading> {
    let rest = &text[digits..];
    let colon = rest.strip_prefix(':').and_then(minute);
    let (minute, after) = colon.unwrap_or((0, rest));
    let half = half_of_day(after);
    let after = half.map_or(after, |(_, after)| after);
    let is_time = match half {
        Some(_) => (1..=12).contains(&hour),
        None => colon.is_some(),
    };
    let longer = after
        .strip_prefix([':', '.'])
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !is_time || longer || !ends_number(after) {
        return None;
    }
    let mut words = cardinal(&hour.to_string(), grammar, None)?;
    match minute {
        0 if half.is_some() => {}
        0 if (1..=12).contains(&hour) => words += " o'clock",
        0 => words += " hundred",
        1..10 => words += &format!(" oh {}", cardinal(&minute.to_string(), grammar, None)?),
        minute => words += &format!(" {}", cardinal(&minute.to_string(), grammar, None)?),
    }
    if let Some((half, _)) = half {
        words += half;
    }
    Some(Reading { bytes: text.len() - after.len(), words })
}

/// "am" or "pm", and what follows. A full stop that may end the sentence stays.
fn half_of_day(text: &str) -> Option<(&'static str, &str)> {
    let text = text.strip_prefix([' ', '\u{202f}']).unwrap_or(text);
    let forms = [
        ("a.m", " AM"),
        ("p.m", " PM"),
        ("am", " AM"),
        ("pm", " PM"),
        ("AM", " AM"),
        ("PM", " PM"),
    ];
    let (form, words) = forms.into_iter().find(|(form, _)| text.starts_with(form))?;
    let after = &text[form.len()..];
    let inside = form.contains('.')
        && after.strip_prefix('.').is_some_and(|after| {
            after.starts_with([' ', ',']) && !after[1..].starts_with(char::is_uppercase)
        });
    let after = if inside { &after[1..] } else { after };
    is_over(after).then_some((words, after))
}
