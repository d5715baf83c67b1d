//! Text as it arrives from a file, a pipe or a keyboard.

use std::io::{self, Read};

use mk_model::text::Utf8Decoder;

/// Bytes asked for at a time; a reader gives what is there.
const MOST: usize = 4096;

/// The text of a reader in pieces, each as soon as it is there and none of them ending within a character. Bytes that
/// are not UTF-8 become U+FFFD. Ends after an error.
pub struct Pieces<R> {
    reader: R,
    decoder: Utf8Decoder,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    /// The text of `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, decoder: Utf8Decoder::default(), ended: false }
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut buffer = [0; MOST];
        while !self.ended {
            let text = match self.reader.read(&mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    self.decoder.finish()
                }
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            };
            if !text.is_empty() {
                return Some(Ok(text));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn characters_come_whole_and_at_once() {
        let text = "Hé 😀你".as_bytes();
        for size in 1..text.len() {
            let pieces: Vec<String> =
                Pieces::new(Slow(text, size)).collect::<io::Result<_>>().expect("no error");
            assert_eq!(pieces.concat().as_bytes(), text);
            assert!(size > 1 || pieces.len() == 5);
        }
    }

    #[test]
    fn what_is_no_text_is_marked() {
        let text = b"a\xFFb\xE4\xBD";
        for size in 1..=text.len() {
            let pieces: io::Result<Vec<String>> = Pieces::new(Slow(text, size)).collect();
            assert_eq!(pieces.expect("no error").concat(), "a\u{FFFD}b\u{FFFD}");
        }
    }
}
