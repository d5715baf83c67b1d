//! Where sentences and clauses end.
//!
//! As Unicode Standard Annex 29 has it, a full stop ends a sentence unless the text goes on in lower case; and it does
//! not after what is known to be an abbreviation, a number in a list, or an initial. Where it is not sure, the sentence
//! goes on: two sentences in one piece are heard as two, half of one is not heard as one.

use super::language::Language;

/// Abbreviations, in lower case and without the last stop, that are followed by what they belong to.
const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "rev", "gen", "col", "sgt", "capt", "lt",
    "gov", "sen", "rep", "hon", "pres", "mt", "ft", "no", "nos", "fig", "figs", "eq", "sec", "ch",
    "vol", "ed", "eds", "pp", "p", "approx", "vs", "cf", "al", "inc", "ltd", "corp", "co", "e.g",
    "i.e", "eg", "ie", "a.m", "p.m", "u.s", "u.k", "ph.d", "rm", "apt", "ext", "tel", "jan", "feb",
    "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec",
];

/// Those that are also words which may end a sentence; they are abbreviations before a number only.
const WORDS: &[&str] = &[
    "no", "nos", "fig", "mar", "max", "es", "art", "ed", "me", "sec", "rep", "col", "ft", "rm",
    "apt", "ext", "tel",
];

const GERMAN: &[&str] = &[
    "z.b", "bzw", "ca", "d.h", "u.a", "evtl", "ggf", "inkl", "exkl", "nr", "str", "hr", "fr",
    "dipl", "ing", "bspw", "sog", "vgl", "zzgl", "s", "abs", "art", "tel", "geb", "st", "i.d.r",
    "o.ä", "v.a", "u.u", "mio", "mrd", "mind", "max", "jh", "okt", "dez", "mär",
];

const FRENCH: &[&str] = &[
    "m", "mm", "mme", "mlle", "me", "dr", "pr", "p.ex", "c.-à-d", "env", "av", "bd", "no", "art",
    "chap", "janv", "févr", "juil", "déc",
];

const SPANISH: &[&str] = &[
    "sr", "sra", "srta", "dra", "d", "dña", "ud", "uds", "p.ej", "ee.uu", "pág", "núm", "av",
    "aprox", "tel",
];

const ITALIAN: &[&str] = &[
    "sig", "sig.ra", "sigg", "dott", "dott.ssa", "avv", "ing", "p.es", "es", "pag", "n", "tel",
    "ecc",
];

const PORTUGUESE: &[&str] =
    &["sr", "sra", "srta", "dra", "d", "exmo", "p.ex", "pág", "núm", "n", "av", "tel", "aprox"];

const RUSSIAN: &[&str] = &[
    "г", "гг", "т.е", "т.д", "т.п", "т.к", "др", "пр", "ул", "стр", "см", "им", "руб", "коп",
    "тыс", "млн", "млрд", "рис", "н.э", "св", "проф",
];

/// Whether a character may stand between the end of a sentence and the space after it.
pub(super) fn is_closing(c: char) -> bool {
    matches!(
        c,
        '"' | '\''
            | '”'
            | '’'
            | '»'
            | '“'
            | '‘'
            | ')'
            | ']'
            | '}'
            | '*'
            | '_'
            | '~'
            | '`'
            | '」'
            | '』'
            | '）'
            | '】'
            | '》'
    )
}

/// Whether a character is of a script that is written without spaces.
pub(super) fn is_wide(c: char) -> bool {
    matches!(c,
        '\u{1100}'..='\u{11ff}' | '\u{2e80}'..='\u{303f}' | '\u{3041}'..='\u{33ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{ff00}'..='\u{ffef}'
        | '\u{20000}'..='\u{3ffff}')
}

/// Whether a sentence ends with a text whose last mark needs no look at what follows. Inside of a quotation it waits
/// for the quotation's end.
pub(super) fn ends_at_once(text: &str) -> bool {
    let marked = text.trim_end_matches(['」', '』', '）', '】', '》', '”', '’']);
    if !marked.ends_with(['。', '！', '？', '｡', '।', '॥', '۔', '؟']) {
        return false;
    }
    !is_quotation_open(text)
}

/// Whether a quotation of East Asia is not over, in what is near the end of a text.
fn is_quotation_open(text: &str) -> bool {
    const PAIRS: [(char, char); 4] = [('「', '」'), ('『', '』'), ('（', '）'), ('“', '”')];
    let near = &text[text.ceil_char_boundary(text.len().saturating_sub(300))..];
    PAIRS.iter().any(|&(open, close)| {
        let last = near.rfind(open);
        last.is_some_and(|last| !near[last..].contains(close))
    })
}

/// Whether a character ends a clause, whatever follows.
pub(super) fn is_clause_mark_at_once(c: char) -> bool {
    matches!(c, '，' | '、' | '；' | '：' | '،' | '؛' | '—')
}

/// Whether a text ends with a mark of a sentence's end, as it may before the end of a line.
pub(super) fn has_mark(text: &str) -> bool {
    let text = text.trim_end().trim_end_matches(is_closing);
    text.ends_with(['.', '!', '?', '…', '。', '！', '？', '｡', '।', '॥', '۔', '؟'])
}

/// Whether a text ends with a mark that makes a pause, but no end.
pub(super) fn has_clause_mark(text: &str) -> bool {
    text.trim_end().ends_with([',', ';', ':', '–', '—', '，', '；', '：', '、'])
}

/// Whether a sentence ends with `before`, where `next` follows after whitespace.
pub(super) fn ends(before: &str, next: char, language: Language) -> bool {
    let text = before.trim_end_matches(is_closing);
    if !has_mark(text) {
        return false;
    }
    if next.is_lowercase() {
        // Some write no capitals at all. In a quotation the sentence goes on: "Why?" he asked.
        return text.ends_with(['!', '?']) && text.len() == before.len();
    }
    match text.strip_suffix('.') {
        Some(text) => text.ends_with('.') || !is_abbreviation(text, next, language),
        None => true,
    }
}

/// Whether the full stop after `text` belongs to its last word.
fn is_abbreviation(text: &str, next: char, language: Language) -> bool {
    let start = text.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let start = text.ceil_char_boundary(start);
    let word = text[start..].trim_start_matches(|c: char| !c.is_alphanumeric());
    // "°C" is no initial.
    if word.is_empty() || text.ends_with("°C") || text.ends_with("°F") {
        return false;
    }
    if word.bytes().all(|c| c.is_ascii_digit()) {
        // "1. item" where a text begins, and "am 3. Mai".
        let first = !text[..start].contains(char::is_alphanumeric);
        return word.len() <= 3 && first || word.len() <= 2 && language == Language::German;
    }
    let mut letters = word.chars();
    if let (Some(letter), None) = (letters.next(), letters.next()) {
        // An initial, but not the English "I"; in lower case a part of "z. B.".
        let english = matches!(language, Language::English | Language::Auto);
        return letter.is_alphabetic()
            && letter != 'I'
            && (letter.is_uppercase() || next.is_numeric() || !english);
    }
    // "U.S.", "J.R.R.", "e.g."
    if word.split('.').all(|part| part.chars().count() == 1) {
        return true;
    }
    let lower = word.to_lowercase();
    // "No." is an answer, unless a number follows.
    known(&lower, language) && (next.is_numeric() || !WORDS.contains(&lower.as_str()))
}

fn known(word: &str, language: Language) -> bool {
    let own = match language {
        Language::German => GERMAN,
        Language::French => FRENCH,
        Language::Spanish => SPANISH,
        Language::Italian => ITALIAN,
        Language::Portuguese => PORTUGUESE,
        Language::Russian => RUSSIAN,
        _ => &[],
    };
    let common = matches!(language, Language::English | Language::Auto) || word.chars().count() > 1;
    own.contains(&word) || common && ABBREVIATIONS.contains(&word)
}

/// Whether a clause ends with `before`, where `next` follows after whitespace: not inside of "1, 2" or "May 5, 2024".
/// What would be the end of a sentence, did a capital follow, is at least that of a clause.
pub(super) fn is_clause(before: &str, next: char, language: Language) -> bool {
    if next.is_lowercase() && ends(before, 'A', language) {
        return true;
    }
    let text = before.trim_end_matches(is_closing);
    let Some(mark) = text.chars().next_back() else { return false };
    let text = &text[..text.len() - mark.len_utf8()];
    let digit = text.ends_with(char::is_numeric);
    match mark {
        ',' | ';' | ':' | '…' | '.' | '!' | '?' if digit && next.is_numeric() => false,
        ',' | ';' | ':' | '…' => true,
        // An abbreviation: no place to rest.
        '.' | '!' | '?' => false,
        '-' | '–' => {
            text.ends_with(char::is_whitespace) && !text.trim_end().ends_with(char::is_numeric)
        }
        _ => false,
    }
}

/// Whether a space may stand inside of what is read as one number, date or amount.
pub(super) fn is_one_number(before: &str, next: char) -> bool {
    let start = before.rfind(char::is_whitespace).map_or(0, |at| at + 1);
    let word = &before[before.ceil_char_boundary(start)..];
    let money = |c: char| {
        matches!(
            c,
            '$' | '€'
                | '£'
                | '¥'
                | '₹'
                | '₽'
                | '₩'
                | '%'
                | '+'
                | '='
                | '×'
                | '<'
                | '>'
                | '~'
                | '≈'
                | '−'
                | '-'
                | '–'
        )
    };
    next.is_numeric() || money(next) || word.contains(char::is_numeric) || word.contains(money)
}

/// Whether markup that must be read as a whole (a link, code) is not over, in what is near the end of a text.
pub(super) fn is_markup_open(text: &str) -> bool {
    let near = &text[text.ceil_char_boundary(text.len().saturating_sub(300))..];
    if near.matches('`').count() % 2 == 1 {
        return true;
    }
    let Some(open) = near.rfind('[') else { return false };
    match near[open..].find("](") {
        None => !near[open..].contains(']'),
        Some(target) => !near[open + target..].contains(')'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where sentences end, marked with `|`, when a text is read word by word.
    fn marked(text: &str, language: Language) -> String {
        let mut out = String::new();
        let mut words = text.split(' ').peekable();
        let mut before = String::new();
        while let Some(word) = words.next() {
            before += word;
            out += word;
            let Some(next) = words.peek().and_then(|next| next.chars().next()) else { break };
            if ends(&before, next, language) {
                before.clear();
                out += " | ";
            } else {
                before.push(' ');
                out.push(' ');
            }
        }
        out
    }

    #[test]
    fn full_stops_that_end_no_sentence() {
        for text in [
            "Dr. Smith met Mrs. Jones at 3.5 m.",
            "Fruit, e.g. Apples, or i.e. Pears",
            "The U.S. Senate and J. R. R. Tolkien",
            "1. Item of a list",
            "See example.com for No. 5 or p. 7",
            "At 5 p.m. Monday",
            "wait... what",
            "He asked \"why?\" and left",
        ] {
            assert_eq!(marked(text, Language::English), text);
        }
        let german = "Am 3. Mai, z. B. Herr Dr. Maier, ca. 5 Uhr bzw. Abend";
        assert_eq!(marked(german, Language::German), german);
        let russian = "В 2020 г. Москва, т.е. Россия";
        assert_eq!(marked(russian, Language::Russian), russian);
    }

    #[test]
    fn sentences_end_where_the_next_begins() {
        for text in [
            "It is 5. | Then go.",
            "So do I. | You too?",
            "No. | That is wrong! | Really? | \"Yes.\" | (Fine.) | **Done.** | Good.",
            "Apples etc. | Pears too.",
            "Wait... | What?",
            "In 2024. | Then 3.14. | End.",
            "really? | yes! | of course",
        ] {
            assert_eq!(marked(&text.replace(" | ", " "), Language::English), text);
        }
    }

    #[test]
    fn marks_of_east_asia_end_at_once() {
        assert!(ends_at_once("你好。") && ends_at_once("「はい。」") && ends_at_once("什么？"));
        assert!(!ends_at_once("「はい。") && !ends_at_once("你好，") && !ends_at_once("Hello."));
    }

    #[test]
    fn clauses_do_not_part_numbers() {
        assert!(
            is_clause("Well,", 'i', Language::English)
                && is_clause("In 2024,", 'w', Language::English)
                && is_clause("so **it**:", 'a', Language::English)
        );
        assert!(
            is_clause("a word -", 'a', Language::English)
                && is_clause("a word –", 'a', Language::English)
        );
        assert!(
            !is_clause("May 5,", '2', Language::English)
                && !is_clause("5 -", 'a', Language::English)
                && !is_clause("word", 'a', Language::English)
        );
    }

    #[test]
    fn who_writes_no_capitals_makes_clauses() {
        assert!(is_clause("it works.", 't', Language::English));
        assert!(
            !is_clause("fruit, e.g.", 'a', Language::English)
                && !is_clause("ca.", 'f', Language::German)
        );
    }

    #[test]
    fn links_and_code_are_open_until_their_end() {
        assert!(
            is_markup_open("see [the")
                && is_markup_open("see [the](http://a")
                && is_markup_open("`a")
        );
        assert!(
            !is_markup_open("see [the](b)") && !is_markup_open("[1] and") && !is_markup_open("`a`")
        );
    }
}
