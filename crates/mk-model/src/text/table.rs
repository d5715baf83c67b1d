//! What every token id stands for, in bytes.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The character by which byte-level BPE writes each byte in its files: GPT-2's alphabet, in which printable bytes
/// stand for themselves and the others are moved above them.
static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut moved = 0x100u32;
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => char::from(byte),
        _ => {
            moved += 1;
            // 68 bytes are moved, to code points below 0x144: letters all of them.
            char::from_u32(moved - 1).unwrap_or('\u{FFFD}')
        }
    })
});

static CHAR_BYTES: LazyLock<HashMap<char, u8>> =
    LazyLock::new(|| (0..=255).map(|byte| (BYTE_CHARS[usize::from(byte)], byte)).collect());

/// The character of every byte in the files of a byte-level BPE.
pub(crate) fn byte_chars() -> &'static [char; 256] {
    &BYTE_CHARS
}

/// The bytes of every id from 0 up, and which ids are special. One allocation for all the bytes.
#[derive(Debug, Default)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Where each id's bytes end.
    ends: Vec<u32>,
    special: Vec<bool>,
}

impl Table {
    /// Adds the next id. A token that is not written in the byte alphabet stands for itself, as an added token may.
    pub(super) fn push(&mut self, token: Option<&str>, special: bool) {
        if let Some(token) = token {
            let start = self.bytes.len();
            for char in token.chars() {
                if let Some(&byte) = CHAR_BYTES.get(&char) {
                    self.bytes.push(byte);
                } else {
                    self.bytes.truncate(start);
                    self.bytes.extend_from_slice(token.as_bytes());
                    break;
                }
            }
        }
        self.ends.push(self.bytes.len() as u32);
        self.special.push(special);
    }

    /// The number of ids.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of `id`; none for an id beyond the table.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = id.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_is_gpt2s() {
        let chars = byte_chars();
        assert_eq!([chars[0], chars[b'\n' as usize], chars[b' ' as usize]], ['Ā', 'Ċ', 'Ġ']);
        assert_eq!([chars[b'a' as usize], chars[0xAD], chars[0xFF]], ['a', 'Ń', 'ÿ']);
        assert_eq!(CHAR_BYTES.len(), 256);
    }

    #[test]
    fn tokens_outside_the_alphabet_stand_for_themselves() {
        let mut table = Table::default();
        for token in [Some("Ġé"), None, Some("é é"), Some("<|x|>")] {
            table.push(token, false);
        }
        assert_eq!(table.bytes(0), b" \xE9");
        assert_eq!(table.bytes(1), b"");
        assert_eq!(table.bytes(2), "é é".as_bytes());
        assert_eq!(table.bytes(3), b"<|x|>");
        assert_eq!(table.bytes(4), b"");
        assert_eq!(table.bytes(u32::MAX), b"");
    }
}
