//! A reply that was cut short.

use unicode_segmentation::UnicodeSegmentation;

/// The reply up to `byte`, cut back to the end of the last whole word (Unicode Standard Annex 29), without markup that
/// was only opened there (`**`, `[`, a bullet). Never inside a grapheme; `byte` may be anywhere, also inside a
/// character or beyond the end.
pub fn cut_at_word(reply: &str, byte: usize) -> &str {
    let byte = reply.floor_char_boundary(byte);
    let mut end = 0;
    for (at, word) in reply.split_word_bound_indices() {
        if at + word.len() > byte {
            break;
        }
        end = at + word.len();
    }
    reply[..end].trim_end()
}
