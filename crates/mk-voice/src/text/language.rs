//! The languages that are spoken.

use std::fmt;
use std::str::FromStr;

/// A language of Qwen3-TTS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Language {
    /// The model finds out; nothing is normalised that one would have to know the language for.
    #[default]
    Auto,
    /// English.
    English,
    /// German.
    German,
    /// French.
    French,
    /// Spanish.
    Spanish,
    /// Italian.
    Italian,
    /// Portuguese.
    Portuguese,
    /// Russian.
    Russian,
    /// Chinese.
    Chinese,
    /// Japanese.
    Japanese,
    /// Korean.
    Korean,
}

/// A name or code that is none of a language that is spoken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown language {name:?}: known are {}", Language::ALL.map(Language::name).join(", "))]
pub struct UnknownLanguage {
    /// What was given.
    pub name: String,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Auto,
        Self::English,
        Self::German,
        Self::French,
        Self::Spanish,
        Self::Italian,
        Self::Portuguese,
        Self::Russian,
        Self::Chinese,
        Self::Japanese,
        Self::Korean,
    ];

    /// The name that Qwen3-TTS knows it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::English => "english",
            Self::German => "german",
            Self::French => "french",
            Self::Spanish => "spanish",
            Self::Italian => "italian",
            Self::Portuguese => "portuguese",
            Self::Russian => "russian",
            Self::Chinese => "chinese",
            Self::Japanese => "japanese",
            Self::Korean => "korean",
        }
    }

    /// Its code of ISO 639-1; none for [`Language::Auto`].
    pub const fn code(self) -> Option<&'static str> {
        Some(match self {
            Self::Auto => return None,
            Self::English => "en",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
            Self::Italian => "it",
            Self::Portuguese => "pt",
            Self::Russian => "ru",
            Self::Chinese => "zh",
            Self::Japanese => "ja",
            Self::Korean => "ko",
        })
    }

    /// Its code of ISO 639-2, terminological.
    const fn long_code(self) -> Option<&'static str> {
        Some(match self {
            Self::Auto => return None,
            Self::English => "eng",
            Self::German => "deu",
            Self::French => "fra",
            Self::Spanish => "spa",
            Self::Italian => "ita",
            Self::Portuguese => "por",
            Self::Russian => "rus",
            Self::Chinese => "zho",
            Self::Japanese => "jpn",
            Self::Korean => "kor",
        })
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name in English, or a code of ISO 639-1 or 639-2 with or without a region (`en`, `eng`, `pt-BR`, `zh_CN`), in any
/// case.
impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(name: &str) -> Result<Self, UnknownLanguage> {
        let wanted = name.trim().to_ascii_lowercase();
        let code = wanted.split(['-', '_']).next();
        let matches = |language: &Self| {
            language.name() == wanted
                || language.code().is_some() && language.code() == code
                || language.long_code().is_some() && language.long_code() == code
        };
        let found = Self::ALL.into_iter().find(matches);
        found.ok_or_else(|| UnknownLanguage { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_codes_are_read() {
        for language in Language::ALL {
            assert_eq!(language.name().parse(), Ok(language));
            assert_eq!(language.to_string().to_uppercase().parse(), Ok(language));
            for code in [language.code(), language.long_code()].into_iter().flatten() {
                assert_eq!(code.parse(), Ok(language));
                assert_eq!(format!(" {code}-XX ").parse(), Ok(language));
            }
        }
        assert_eq!("pt_BR".parse(), Ok(Language::Portuguese));
    }

    #[test]
    fn what_is_no_language_is_named() {
        for name in ["", "-", "klingon", "e", "english-speaking"] {
            let error = name.parse::<Language>().unwrap_err();
            assert_eq!(error.name, name);
            assert!(error.to_string().contains("portuguese"));
        }
    }
}
