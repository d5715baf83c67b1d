//! What is said in other words than it is written.

use super::language::Language;
use super::placed::Placed;

/// A text as it is read aloud in a language.
pub(super) fn normal(text: &Placed, language: Language) -> Placed {
    let _ = language;
    text.clone()
}
