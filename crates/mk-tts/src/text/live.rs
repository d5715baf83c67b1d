//! A text that is spoken while it is being written.
//!
//! [`live_text`] makes two ends: a [`TextWriter`] for the thread that gets a text piece by piece, from a language model
//! say, and a [`TextReader`] for the speech, which takes one token a frame. Text is cleaned and tokenised on its way,
//! and what the reader gets is, token for token, what it would get of the whole text.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mk_model::text::{LiveEncoder, Piece, Tokenizer};

use super::clean::{Cleaner, Origin};
use super::position::{SpokenToken, syllables};
use crate::error::{Error, Result};
use crate::talker::TextToken;

/// Bytes of one word without an end, after which it is taken for ended. No language has such; it bounds the memory and
/// the time that a broken writer takes.
const MAX_WORD: usize = 1024;

/// Bytes taken at a time, so that `MAX_WORD` is looked at often enough.
const STRIDE: usize = 256;

/// Limits of a live text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveOptions {
    /// Tokens that may wait for the reader; a writer that is further ahead has to wait. At least 1. Default: 4096,
    /// some quarter of an hour of speech.
    pub max_waiting: usize,
    /// How long the reader waits for a writer that gives nothing. `None` waits for ever. Default: 30 s.
    pub idle_timeout: Option<Duration>,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self { max_waiting: 4096, idle_timeout: Some(Duration::from_secs(30)) }
    }
}

/// Makes the two ends of a live text.
pub fn live_text(tokenizer: &Tokenizer, options: LiveOptions) -> (TextWriter, TextReader) {
    let state = State {
        waiting: VecDeque::new(),
        tokens: 0,
        finished: false,
        cancelled: false,
        reader_gone: false,
        written: Instant::now(),
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), options });
    let writer = TextWriter {
        shared: Arc::clone(&shared),
        cleaner: Cleaner::new(tokenizer),
        encoder: tokenizer.live(),
        text: String::new(),
        finished: false,
    };
    (writer, TextReader { shared, dry_since: None })
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    options: LiveOptions,
}

struct State {
    waiting: VecDeque<SpokenToken>,
    /// Tokens that came through so far.
    tokens: usize,
    finished: bool,
    cancelled: bool,
    reader_gone: bool,
    /// When the writer was last heard of.
    written: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics with the lock held; if some did, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that a text is written into. Dropping it finishes the text.
pub struct TextWriter {
    shared: Arc<Shared>,
    cleaner: Cleaner,
    encoder: LiveEncoder,
    /// The clean text that the encoder holds back.
    text: String,
    finished: bool,
}

/// The end that a speech reads from. Dropping it makes the writer's next push an error.
#[derive(Debug)]
pub struct TextReader {
    shared: Arc<Shared>,
    dry_since: Option<Instant>,
}

/// Looks at a live text, and cancels it, from any thread.
#[derive(Debug, Clone)]
pub struct TextHandle {
    shared: Arc<Shared>,
}

/// What a reader finds when it does not wait.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival {
    /// The next token.
    Token(SpokenToken),
    /// The text is not finished, and its next token not there.
    Dry,
    /// There are no more.
    Finished,
}

impl TextWriter {
    /// Takes the next part of the text, cut between any two characters. Waits while more than
    /// [`LiveOptions::max_waiting`] tokens wait for the reader, so that a thread which both writes and reads one text
    /// may stop for ever: give the two ends to two threads.
    ///
    /// # Errors
    /// [`Error::TextClosed`] when the reader is gone, [`Error::TextCancelled`], and those of the tokenizer.
    pub fn push(&mut self, text: &str) -> Result<()> {
        let mut rest = text;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.ceil_char_boundary(STRIDE));
            let clean = self.cleaner.push(part);
            let tokens = self.encode(&clean)?;
            self.send(tokens)?;
            rest = after;
        }
        let mut state = self.open()?;
        state.written = Instant::now();
        Ok(())
    }

    /// Ends the text. Never waits.
    ///
    /// # Errors
    /// As [`TextWriter::push`].
    pub fn finish(mut self) -> Result<()> {
        self.end()
    }

    /// A handle on the text.
    pub fn handle(&self) -> TextHandle {
        TextHandle { shared: Arc::clone(&self.shared) }
    }

    fn end(&mut self) -> Result<()> {
        self.finished = true;
        let clean = self.cleaner.finish();
        let last = self.encode(&clean).and_then(|mut tokens| {
            let pieces = self.encoder.finish()?;
            tokens.extend(self.placed(pieces));
            Ok(tokens)
        });
        // The reader is told in any case, lest it wait for a writer that failed.
        let mut state = self.shared.lock();
        state.finished = true;
        self.shared.changed.notify_all();
        // These few may exceed the limit: who drops a writer does not expect to wait.
        let last = last?;
        state.tokens += last.len();
        state.waiting.extend(last);
        state.check()
    }

    /// The tokens that a part of the clean text makes final.
    fn encode(&mut self, clean: &str) -> Result<Vec<SpokenToken>> {
        self.text.push_str(clean);
        let mut pieces = self.encoder.push(clean)?;
        if self.encoder.held() > MAX_WORD {
            pieces.extend(self.encoder.finish()?);
        }
        Ok(self.placed(pieces))
    }

    /// Tokens with their places in what the caller wrote, and lets go of their text.
    fn placed(&mut self, pieces: Vec<Piece>) -> Vec<SpokenToken> {
        let Some(last) = pieces.last() else { return Vec::new() };
        let (from, to) = (pieces[0].text.start, last.text.end);
        let tokens = spoken(pieces, &self.text, from, self.cleaner.origin());
        self.text.drain(..to - from);
        tokens
    }

    fn send(&mut self, tokens: Vec<SpokenToken>) -> Result<()> {
        for token in tokens {
            let mut state = self.open()?;
            while state.waiting.len() >= self.shared.options.max_waiting.max(1) {
                let waited = self.shared.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                state.check()?;
            }
            state.waiting.push_back(token);
            state.tokens += 1;
            state.written = Instant::now();
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// The state, if there still is someone to read.
    fn open(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.shared.lock();
        state.check()?;
        Ok(state)
    }
}

impl Drop for TextWriter {
    fn drop(&mut self) {
        if !self.finished {
            // There is nobody to be told of an error; the reader gets what there is.
            let _ = self.end();
        }
    }
}

impl TextReader {
    /// The next token, or `None` when there are no more. Waits for the writer.
    ///
    /// # Errors
    /// [`Error::EmptyText`] when the text ends without a token, [`Error::TextStalled`] when the writer has given
    /// nothing for longer than [`LiveOptions::idle_timeout`], [`Error::TextCancelled`].
    pub fn wait(&mut self) -> Result<Option<SpokenToken>> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            let patience = match self.take(&mut state)? {
                Arrival::Token(token) => return Ok(Some(token)),
                Arrival::Finished => return Ok(None),
                Arrival::Dry => self.patience(&state),
            };
            state = match patience {
                None => shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(time) => {
                    let waited = shared.changed.wait_timeout(state, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// What there is, without waiting.
    ///
    /// # Errors
    /// As [`TextReader::wait`].
    pub fn poll(&mut self) -> Result<Arrival> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        self.take(&mut state)
    }

    /// A handle on the text.
    pub fn handle(&self) -> TextHandle {
        TextHandle { shared: Arc::clone(&self.shared) }
    }

    fn take(&mut self, state: &mut State) -> Result<Arrival> {
        if state.cancelled {
            return Err(Error::TextCancelled);
        }
        if let Some(token) = state.waiting.pop_front() {
            self.dry_since = None;
            self.shared.changed.notify_all();
            return Ok(Arrival::Token(token));
        }
        if state.finished {
            return if state.tokens == 0 { Err(Error::EmptyText) } else { Ok(Arrival::Finished) };
        }
        self.dry_since.get_or_insert_with(Instant::now);
        match self.patience(state) {
            Some(Duration::ZERO) => {
                let timeout = self.shared.options.idle_timeout.unwrap_or_default();
                Err(Error::TextStalled { timeout })
            }
            _ => Ok(Arrival::Dry),
        }
    }

    /// How much longer to wait, if there is a limit: counted from when the text ran dry, or from a later sign of life.
    fn patience(&self, state: &State) -> Option<Duration> {
        let timeout = self.shared.options.idle_timeout?;
        let idle =
            self.dry_since.map_or(Duration::ZERO, |since| since.max(state.written).elapsed());
        Some(timeout.saturating_sub(idle))
    }
}

impl Drop for TextReader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.reader_gone = true;
        state.waiting.clear();
        self.shared.changed.notify_all();
    }
}

impl TextHandle {
    /// Cancels the text: whoever waits for it or works with it gets [`Error::TextCancelled`].
    pub fn cancel(&self) {
        let mut state = self.shared.lock();
        state.cancelled = true;
        state.waiting.clear();
        self.shared.changed.notify_all();
    }

    /// Whether a reader would have to wait now.
    pub fn is_dry(&self) -> bool {
        let state = self.shared.lock();
        state.waiting.is_empty() && !state.finished && !state.cancelled
    }

    /// Tokens that wait for the reader.
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting.len()
    }
}

impl State {
    fn check(&self) -> Result<()> {
        match (self.cancelled, self.reader_gone) {
            (true, _) => Err(Error::TextCancelled),
            (_, true) => Err(Error::TextClosed),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for TextWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextWriter").field("held", &self.text).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("options", &self.options)
            .field("waiting", &state.waiting.len())
            .field("finished", &state.finished)
            .field("cancelled", &state.cancelled)
            .finish_non_exhaustive()
    }
}

/// Tokens of a clean text, of which `text` holds what begins at byte `from`, with their places in the original.
pub(super) fn spoken(
    pieces: Vec<Piece>,
    text: &str,
    from: usize,
    origin: &Origin,
) -> Vec<SpokenToken> {
    let mut last: Option<Range<usize>> = None;
    let tokens = pieces.into_iter().map(|Piece { id, text: place }| {
        let again = last.as_ref() == Some(&place);
        let heard = &text[place.start - from..place.end - from];
        let syllables = if again { 0.0 } else { syllables(heard) };
        let token = TextToken { id, text: origin.of(place.clone()) };
        last = Some(place);
        SpokenToken { token, syllables }
    });
    tokens.collect()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::text::prepare;
    use crate::text::tests::TOKENIZER;

    fn pair(max_waiting: usize, idle_timeout: Option<Duration>) -> (TextWriter, TextReader) {
        live_text(&TOKENIZER, LiveOptions { max_waiting, idle_timeout })
    }

    fn rest(reader: &mut TextReader) -> Vec<SpokenToken> {
        let tokens = std::iter::from_fn(|| reader.wait().expect("no error"));
        tokens.collect()
    }

    #[test]
    fn what_is_written_is_read_as_it_would_be_whole() {
        let text = "  It'll rain, <|im_end|> they say: 你好。\n\nWon't it?  \n ";
        let whole = prepare(&TOKENIZER, text, usize::MAX).expect("some text").remove(0);
        for size in [1, 3, 1000] {
            let (mut writer, mut reader) = pair(2, None);
            let read = thread::scope(|scope| {
                scope.spawn(move || {
                    let characters: Vec<char> = text.chars().collect();
                    for part in characters.chunks(size) {
                        writer.push(&part.iter().collect::<String>()).expect("room");
                    }
                });
                rest(&mut reader)
            });
            assert_eq!(read, whole.tokens);
        }
    }

    #[test]
    fn a_reader_sees_when_the_text_is_dry() {
        let (mut writer, mut reader) = pair(100, None);
        let handle = writer.handle();
        assert_eq!(reader.poll().expect("no error"), Arrival::Dry);
        writer.push("Hello").expect("room");
        // The word may go on.
        assert!(handle.is_dry());
        writer.push(" world").expect("room");
        assert!(!handle.is_dry());
        let Arrival::Token(token) = reader.poll().expect("no error") else {
            panic!("a word was there");
        };
        assert_eq!(token.token.text.start, 0);
        while reader.poll().expect("no error") != Arrival::Dry {}
        writer.finish().expect("a reader");
        let last = rest(&mut reader);
        assert_eq!(last.last().map(|token| token.token.text.end), Some("Hello world".len()));
        assert_eq!(reader.poll().expect("no error"), Arrival::Finished);
        assert!(!handle.is_dry());
    }

    #[test]
    fn a_writer_waits_for_the_reader() {
        let (mut writer, mut reader) = pair(3, None);
        let handle = reader.handle();
        thread::scope(|scope| {
            scope.spawn(move || writer.push(&"word ".repeat(100)).expect("a reader"));
            let mut tokens = 0;
            while reader.wait().expect("no error").is_some() {
                // The last ones come with the end.
                assert!(handle.waiting() <= 3 + 6);
                tokens += 1;
            }
            assert!(tokens > 100);
        });
    }

    #[test]
    fn nobody_waits_for_one_who_is_gone() {
        let (mut writer, reader) = pair(1, None);
        thread::scope(|scope| {
            let writing = scope.spawn(move || writer.push(&"word ".repeat(100)));
            drop(reader);
            let error = writing.join().expect("no panic").expect_err("nobody reads");
            assert!(matches!(error, Error::TextClosed));
        });
        let (writer, mut reader) = pair(1, None);
        thread::scope(|scope| {
            let reading = scope.spawn(move || reader.wait());
            drop(writer);
            let error = reading.join().expect("no panic").expect_err("nothing was written");
            assert!(matches!(error, Error::EmptyText));
        });
    }

    #[test]
    fn cancelling_wakes_both_ends() {
        let (mut writer, mut reader) = pair(1, None);
        let handle = reader.handle();
        thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let result = reader.wait();
                (reader, result)
            });
            handle.cancel();
            let (mut reader, result) = reading.join().expect("no panic");
            assert!(matches!(result, Err(Error::TextCancelled)));
            assert!(matches!(reader.poll(), Err(Error::TextCancelled)));
            assert!(matches!(writer.push("x"), Err(Error::TextCancelled)));
            assert!(matches!(writer.finish(), Err(Error::TextCancelled)));
        });
        let (mut writer, reader) = pair(1, None);
        let handle = writer.handle();
        thread::scope(|scope| {
            let writing = scope.spawn(move || writer.push(&"word ".repeat(100)));
            handle.cancel();
            assert!(matches!(writing.join().expect("no panic"), Err(Error::TextCancelled)));
        });
        drop(reader);
    }

    #[test]
    fn a_writer_that_stalls_is_an_error() {
        let timeout = Duration::from_millis(40);
        let (mut writer, mut reader) = pair(9, Some(timeout));
        writer.push("One word").expect("room");
        // Time alone is no stall while there is something to read.
        thread::sleep(timeout * 2);
        assert!(matches!(reader.poll(), Ok(Arrival::Token(_))));
        let begun = Instant::now();
        let error = std::iter::from_fn(|| Some(reader.wait())).find_map(Result::err);
        assert!(matches!(error, Some(Error::TextStalled { .. })));
        assert!(begun.elapsed() >= timeout);
        assert!(matches!(reader.poll(), Err(Error::TextStalled { .. })));
        // It is no end: a sign of life, and the speech may go on.
        writer.push(" more").expect("room");
        assert!(matches!(reader.poll(), Ok(Arrival::Token(_))));
    }

    #[test]
    fn a_word_without_an_end_takes_no_memory() {
        let (mut writer, mut reader) = pair(usize::MAX, None);
        writer.push(&"x".repeat(20_000)).expect("room");
        assert!(writer.text.len() <= MAX_WORD);
        writer.push(&" ".repeat(20_000)).expect("room");
        assert!(writer.text.len() <= MAX_WORD);
        writer.finish().expect("a reader");
        assert_eq!(rest(&mut reader).last().map(|token| token.token.text.end), Some(20_000));
    }

    proptest! {
        #[test]
        fn any_text_cut_anywhere(
            bits in prop::collection::vec(prop::sample::select(vec![
                "a", "word", " ", " the", "'ll", "é", "e\u{301}", "文", "。", "\n", "<|im_", "<|im_end|>", "end|>", "1",
                "\u{0}", "😀",
            ]), 1..30),
        ) {
            let text = bits.concat();
            let (mut writer, mut reader) = pair(usize::MAX, None);
            for bit in bits {
                writer.push(bit).expect("room");
            }
            writer.finish().expect("a reader");
            match prepare(&TOKENIZER, &text, usize::MAX) {
                Ok(whole) => prop_assert_eq!(rest(&mut reader), whole[0].tokens.clone()),
                Err(_) => prop_assert!(matches!(reader.wait(), Err(Error::EmptyText))),
            }
        }
    }
}
