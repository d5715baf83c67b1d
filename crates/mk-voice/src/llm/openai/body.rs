//! From the bytes of a response to its server-sent events.

use bytes::Bytes;
use eventsource_stream::{EventStreamError, Eventsource};
use futures_util::{Stream, StreamExt, future, stream};
use mk_model::text::Utf8Decoder;

use super::retry::Failure;

/// Bytes of the longest line. One chunk of an answer has some hundreds.
const MAX_LINE: usize = 1 << 20;
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// The data of each event in a body, whatever the pieces it comes in. An event that the end of the body cuts off before
/// its empty line counts; the first error ends it.
pub(super) fn data(
    bytes: impl Stream<Item = Result<Bytes, Failure>> + Send,
) -> impl Stream<Item = Result<String, Failure>> + Send {
    let mut text = Text::default();
    let texts = bytes.map(Some).chain(stream::iter([None])).map(move |part| match part {
        Some(bytes) => text.push(&bytes?),
        None => Ok(text.finish()),
    });
    let data = texts.eventsource().map(|event| match event {
        Ok(event) => Ok(event.data),
        Err(EventStreamError::Transport(failure)) => Err(failure),
        Err(error) => Err(Failure::passing(error.to_string())),
    });
    let until_failed = |failed: &mut bool, data: Result<_, _>| {
        let over = std::mem::replace(failed, data.is_err());
        future::ready((!over).then_some(data))
    };
    data.scan(false, until_failed)
}

/// Makes text of bytes, with lines that are not too long and no byte order mark.
#[derive(Debug, Default)]
struct Text {
    decoder: Utf8Decoder,
    /// Bytes since the last end of a line.
    line: usize,
    /// Whether there was any text yet.
    begun: bool,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) -> Result<String, Failure> {
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            self.line += part.len();
            if self.line > MAX_LINE {
                let reason = format!("a line of more than {MAX_LINE} bytes");
                return Err(Failure::passing(reason));
            }
            if part.ends_with(b"\n") || part.ends_with(b"\r") {
                self.line = 0;
            }
        }
        let text = self.decoder.push(bytes);
        Ok(self.begin(text))
    }

    /// The rest, and what ends the last event if nothing else did.
    fn finish(&mut self) -> String {
        let text = self.decoder.finish();
        self.begin(text) + "\n\n"
    }

    fn begin(&mut self, mut text: String) -> String {
        if !self.begun {
            // The parser would panic at a byte order mark.
            text.drain(..text.len() - text.trim_start_matches(BYTE_ORDER_MARK).len());
            self.begun = !text.is_empty();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<String, Failure>> {
        let pieces = pieces.into_iter().map(|piece| Ok(Bytes::copy_from_slice(piece)));
        let pieces: Vec<_> = pieces.collect();
        data(stream::iter(pieces)).collect().now_or_never().expect("nothing to wait for")
    }

    fn texts(body: &[u8]) -> Vec<String> {
        read([body]).into_iter().map(|data| data.expect("data")).collect()
    }

    #[test]
    fn events_in_all_their_forms() {
        let body = b"\xEF\xBB\xBF\xEF\xBB\xBF: ping\n\ndata: a\n\ndata:b\r\n\r\nevent: x\rdata: c\rdata: d\r\r\
            id: 7\nretry: 3\nwhatever\n\ndata: e";
        assert_eq!(texts(body), ["a", "b", "c\nd", "e"]);
    }

    #[test]
    fn what_is_no_text_is_marked() {
        assert_eq!(texts(b"data: a\xFFb\n\ndata: c\xE4\xBD"), ["a\u{FFFD}b", "c\u{FFFD}"]);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let piece = vec![b'x'; 10_000];
        let found = read(std::iter::repeat_n(&piece[..], 200));
        assert!(matches!(&found[..], [Err(failure)] if failure.reason.contains("a line of more")));
        let lines = [&piece[..], b"\r"].concat();
        assert!(read(std::iter::repeat_n(&lines[..], 200)).is_empty());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            bits in prop::collection::vec(prop::sample::select(vec![
                "data: ", "data:", "\u{FEFF}", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", ": ping", "é", "文", "x", "event: y",
            ]), 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let whole = bits.concat().into_bytes();
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
            places.extend([0, whole.len()]);
            places.sort_unstable();
            let pieces = places.windows(2).map(|ends| &whole[ends[0]..ends[1]]);
            prop_assert_eq!(read(pieces), read([&whole[..]]));
        }
    }
}
