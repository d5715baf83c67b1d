//! Keys, which are sent to whom they are for, and nowhere else.

use std::fmt;

/// A key. Its value is never printed: `Debug` shows that there is one, and there is no `Display`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `value`, without the white space around it (a key read from a file often ends in a line break).
    pub fn new(value: impl Into<String>) -> Self {
        let value = value.into();
        let trimmed = value.trim();
        if trimmed.len() == value.len() { Self(value) } else { Self(trimmed.to_owned()) }
    }

    /// The value, to be sent.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text`, which somebody else wrote, without the key in it.
    pub fn redact(&self, text: &str) -> String {
        if self.0.is_empty() { text.to_owned() } else { text.replace(&self.0, "<key>") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(none)" } else { "Secret(…)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_printed() {
        let key = Secret::new(" sk-12345\n");
        assert_eq!(key.expose(), "sk-12345");
        assert_eq!(format!("{key:?} {:?}", Secret::default()), "Secret(…) Secret(none)");
        assert_eq!(key.redact("no such key: sk-12345."), "no such key: <key>.");
        assert_eq!(Secret::default().redact("as it was"), "as it was");
    }
}
