//! Qwen3-TTS as a voice: the model of [`mk_tts`], in this process.

use std::pin::pin;
use std::sync::Arc;

use mk_tts::talker::TextLayout;
use mk_tts::text::{TextHandle, TextWriter};
use mk_tts::{Canceller, Error, SpeakOptions, Speech, Voice};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;

use super::trim::Trim;
use super::{Mark, Tts, TtsError, TtsEvent, Utterance};

/// Pieces of text that may wait to be taken.
const WAITING_TEXTS: usize = 64;
/// Events that may wait for whoever plays them: some 20 s of sound.
const WAITING_EVENTS: usize = 64;
/// Utterances that are made at once, unless it is said otherwise.
const AT_ONCE: usize = 2;

/// A voice of Qwen3-TTS.
///
/// Each utterance is a speech of its own, in the streaming layout, with the same options and the same seed. It is made in
/// a thread for blocking work, a bounded number of them at once; others wait their turn while their text is taken in.
/// Where a guard of the options, or the model, ends an utterance before its text is spoken, the last of its marks is
/// before the end of the text.
#[derive(Debug, Clone)]
pub struct QwenTts {
    name: String,
    model: Model,
    threads: Arc<Semaphore>,
    trim_silence: bool,
}

/// What a speech is made of.
#[derive(Debug, Clone)]
struct Model {
    tts: mk_tts::Tts,
    voice: Voice,
    options: SpeakOptions,
}

/// Why a voice is not one to talk with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QwenTtsError {
    /// The model makes up another voice for every utterance.
    #[error(
        "a described voice would be another one in every sentence; speak one sentence with it, and clone that with a Base model"
    )]
    Described,
    /// What [`mk_tts`] says: a layout that needs the whole text, a voice or a language that the model does not have.
    #[error(transparent)]
    Speech(#[from] Error),
}

impl QwenTts {
    /// A voice of a model. A described voice ([`Voice::is_described`]) is refused, since each sentence of an answer is an
    /// utterance, and each would be in another voice.
    ///
    /// # Errors
    /// A described voice, a layout that is not streamed, a voice or a language that the model does not have.
    pub fn new(
        tts: mk_tts::Tts,
        voice: Voice,
        options: SpeakOptions,
    ) -> Result<Self, QwenTtsError> {
        if voice.is_described() {
            return Err(QwenTtsError::Described);
        }
        if options.layout == Some(TextLayout::Whole) {
            return Err(Error::NotStreaming.into());
        }
        tts.prompt_spec(&voice, &options.language, TextLayout::Streaming)?;
        let who = voice.name().unwrap_or("cloned voice");
        Ok(Self {
            name: format!("Qwen3-TTS ({who}, {})", options.language),
            model: Model { tts, voice, options },
            threads: Arc::new(Semaphore::new(AT_ONCE)),
            trim_silence: true,
        })
    }

    /// How many utterances are made at once: 2 where nothing is said; at least 1. More share the machine's cores, and each
    /// takes longer.
    pub fn at_once(mut self, count: usize) -> Self {
        self.threads = Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        self
    }

    /// Whether the silence that an utterance begins with is left out: up to 300 ms below -50 dB of full scale. It is where
    /// nothing is said.
    pub fn trim_silence(mut self, yes: bool) -> Self {
        self.trim_silence = yes;
        self
    }

    /// Computes what is kept of the voice, so that the first utterance begins as soon as the next. Takes a while: to be
    /// called from a thread for blocking work.
    ///
    /// # Errors
    /// Those of [`mk_tts::Tts::warm_up`].
    pub fn warm_up(&self) -> Result<(), QwenTtsError> {
        let Model { tts, voice, options } = &self.model;
        tts.warm_up(voice, &options.language, TextLayout::Streaming)?;
        // One frame, so that the pages of all weights are there.
        let options = SpeakOptions { layout: Some(TextLayout::Streaming), ..options.clone() };
        tts.speak("One.", voice, &options)?.next().transpose()?;
        Ok(())
    }
}

impl Tts for QwenTts {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample_rate(&self) -> u32 {
        self.model.tts.sample_rate()
    }

    fn speak(&self) -> Utterance {
        let (text, texts) = mpsc::channel(WAITING_TEXTS);
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        tokio::spawn(self.clone().utter(texts, sender));
        Utterance { text, events }
    }
}

impl QwenTts {
    /// Makes one utterance. Ends when it is over, or when nobody listens any more.
    async fn utter(self, texts: mpsc::Receiver<String>, events: mpsc::Sender<TtsEvent>) {
        let work = async {
            // Closed is what it never is.
            let Ok(turn) = Arc::clone(&self.threads).acquire_owned().await else { return };
            if let Err(reason) = self.make(turn, texts, &events).await {
                tracing::warn!(voice = self.name, reason, "an utterance failed");
                let failed = TtsEvent::Failed(TtsError { voice: self.name.clone(), reason });
                // Nobody may be there to be told.
                let _ = events.send(failed).await;
            }
        };
        tokio::select! {
            () = events.closed() => {}
            () = work => {}
        }
    }

    async fn make(
        &self,
        turn: OwnedSemaphorePermit,
        texts: mpsc::Receiver<String>,
        events: &mpsc::Sender<TtsEvent>,
    ) -> Result<(), String> {
        let panicked = |_| "the model panicked".to_owned();
        let Model { tts, voice, options } = self.model.clone();
        // The first utterance of a cloned voice speaks its recording first.
        let begin = move || (tts.speak_live(&voice, &options), turn);
        let (begun, turn) = spawn_blocking(begin).await.map_err(panicked)?;
        let (writer, speech) = begun.map_err(|error| error.to_string())?;
        let _cancelled = CancelOnDrop(speech.canceller());
        let trim = Trim::new(self.sample_rate(), self.trim_silence);
        let speaker = Speaker {
            frame: self.model.tts.samples_per_frame() as u64,
            trim,
            events: events.clone(),
        };
        let mut speaking = spawn_blocking(move || {
            let made = speaker.speak(speech);
            drop(turn);
            made
        });
        let limit = self.model.options.live.max_waiting;
        let mut written = Written::default();
        let made = {
            let mut writing = pin!(write(writer, texts, limit, &mut written));
            let mut done = false;
            loop {
                tokio::select! {
                    made = &mut speaking => break made.map_err(panicked)?,
                    () = &mut writing, if !done => done = true,
                }
            }
        };
        let end = match made {
            Ok(end) => end,
            // Nothing but spaces and the like is spoken by being silent.
            Err(Error::EmptyText) => End { cut: 0, marks: vec![(0, 0)] },
            Err(error) => return Err(error.to_string()),
        };
        let marks = end.into_marks(&written);
        // Nobody may be there to be told.
        let _ = events.send(TtsEvent::Ended { marks }).await;
        Ok(())
    }
}

/// Ends a speech with the utterance that it is for, wherever it is.
struct CancelOnDrop(Canceller);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// What has been written of a text, in bytes.
#[derive(Debug, Default)]
struct Written {
    all: usize,
    /// Up to the last letter or digit.
    sayable: usize,
}

impl Written {
    fn add(&mut self, text: &str) {
        if let Some(last) = text.rfind(char::is_alphanumeric) {
            self.sayable = self.all + last + text[last..].chars().next().map_or(0, char::len_utf8);
        }
        self.all += text.len();
    }
}

/// Hands the text over as it comes. Where the speech takes no more, neither does this.
async fn write(
    mut writer: TextWriter,
    mut texts: mpsc::Receiver<String>,
    limit: usize,
    written: &mut Written,
) {
    let handle = writer.handle();
    while let Some(text) = texts.recv().await {
        written.add(&text);
        let pushed = if has_room(&handle, &text, limit) {
            writer.push(&text)
        } else {
            let wait = spawn_blocking(move || {
                let pushed = writer.push(&text);
                (writer, pushed)
            });
            let Ok((back, pushed)) = wait.await else { return };
            writer = back;
            pushed
        };
        // The speech is over, and says itself why.
        if pushed.is_err() {
            return;
        }
    }
    if let Err(error) = writer.finish() {
        tracing::debug!(%error, "the rest of a text is not spoken");
    }
}

/// Whether a push need not wait for the reader. A token has one byte at least.
fn has_room(handle: &TextHandle, text: &str, limit: usize) -> bool {
    handle.waiting().saturating_add(text.len()).saturating_add(HELD_TOKENS) < limit
}

/// Tokens that a writer may have held back before, at most.
const HELD_TOKENS: usize = 1024;

/// Makes the sound, in a thread of its own.
struct Speaker {
    /// Samples of a frame.
    frame: u64,
    trim: Trim,
    events: mpsc::Sender<TtsEvent>,
}

/// What is known in the end.
struct End {
    /// Samples that were left out at the beginning.
    cut: u64,
    marks: Vec<(u64, usize)>,
}

impl Speaker {
    fn speak(mut self, mut speech: Speech) -> mk_tts::Result<End> {
        let mut given = 0;
        for chunk in &mut speech {
            let mut chunk = chunk?;
            chunk.samples = self.trim.push(chunk.samples);
            let samples = chunk.to_i16();
            if samples.is_empty() {
                continue;
            }
            given += samples.len() as u64;
            let mark = Mark { sample: given, byte: chunk.text.end };
            if self.events.blocking_send(TtsEvent::Audio { samples, mark }).is_err() {
                break;
            }
        }
        self.trim.finish();
        let marks = speech.spoken_text().marks(self.frame);
        Ok(End { cut: self.trim.cut() as u64, marks })
    }
}

impl End {
    /// The marks of what is heard of a text.
    fn into_marks(self, written: &Written) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::new();
        for (sample, byte) in self.marks {
            let mark = Mark { sample: sample.saturating_sub(self.cut), byte };
            // Of those at the same sample the last counts.
            marks.pop_if(|last| last.sample == mark.sample);
            marks.push(mark);
        }
        // No token stands for what is not spoken, such as space at the end.
        if let Some(last) = marks.last_mut()
            && last.byte >= written.sayable
        {
            last.byte = written.all;
        }
        marks
    }
}

#[cfg(test)]
mod tests;
