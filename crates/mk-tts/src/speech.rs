//! One speech: chunks of samples, made as they are asked for.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::codec::CodecStream;
use crate::config::SpeechSampling;
use crate::error::{Error, Result};
use crate::fade::Fades;
use crate::guard::{Guard, GuardOptions, Stop};
use crate::talker::{Frames, PromptSpec, TextFeed, TextLayout};
use crate::text::{
    self, LiveOptions, TextHandle, TextReader, TextWriter, Timeline, live_text, prepare,
};
use crate::tts::Tts;
use crate::voice::Voice;

/// How to speak.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakOptions {
    /// The language by its name, one of [`Tts::languages`].
    pub language: String,
    /// How the text comes to the talker; that of [`Tts::default_layout`] if `None`. A live text is always streamed.
    pub layout: Option<TextLayout>,
    /// How codes are chosen; as the checkpoint suggests if `None`.
    pub sampling: Option<SpeechSampling>,
    /// The same seed makes the same speech, on the same backend.
    pub seed: u64,
    /// Frames of the first chunk, of 80 ms each: fewer are heard sooner. 0 counts as 1.
    pub first_chunk_frames: usize,
    /// Frames of the other chunks: more take less time each. 0 counts as 1.
    pub chunk_frames: usize,
    /// What ends a speech that the model does not end.
    pub guard: GuardOptions,
    /// Tokens of a text that are spoken in one go; longer texts are split at the ends of sentences. A described voice
    /// always speaks in one go, since the model would make up another voice each time.
    pub segment_tokens: usize,
    /// How long the sound takes to come up at the beginning and to go down at the end, so that neither clicks.
    pub fade: Duration,
    /// Limits of a live text.
    pub live: LiveOptions,
}

impl Default for SpeakOptions {
    fn default() -> Self {
        Self {
            language: "auto".into(),
            layout: None,
            sampling: None,
            seed: 0,
            first_chunk_frames: 1,
            chunk_frames: 4,
            guard: GuardOptions::default(),
            segment_tokens: 200,
            fade: Duration::from_millis(5),
            live: LiveOptions::default(),
        }
    }
}

/// A stretch of speech.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// Mono samples from -1 to 1, at [`Tts::sample_rate`].
    pub samples: Vec<f32>,
    /// Number of the first of them, from the beginning of the speech.
    pub first_sample: u64,
    /// Bytes of the text that are spoken in it, by what was known when it was made: see [`SpokenText`].
    pub text: Range<usize>,
    /// Bytes of the text that the model had been given when it was made. Nothing beyond is in it for sure.
    pub fed: usize,
}

impl Chunk {
    /// The samples as 16-bit integers.
    pub fn to_i16(&self) -> Vec<i16> {
        self.samples.iter().map(|x| (x * 32767.0).round() as i16).collect()
    }
}

/// Why a speech ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finish {
    /// The model ended it.
    EndOfSpeech,
    /// A guard ended it, or one of its segments.
    Guard(Stop),
    /// The talker's context is full.
    Context,
    /// It was cancelled.
    Cancelled,
}

/// Says how much of the text is spoken; usable from another thread than the speech is made in.
#[derive(Debug, Clone)]
pub struct SpokenText {
    timeline: Arc<Mutex<Timeline>>,
    /// The highest answer so far.
    most: Arc<AtomicUsize>,
}

impl SpokenText {
    /// The byte of the text up to which is spoken when so many samples have been played. Exact where a text, or a
    /// segment of it, begins and ends; in between an estimate, since the model does not say which sound belongs to
    /// which word. Never less than it was before.
    pub fn at(&self, played: u64) -> usize {
        let spoken = self.lock().spoken(played);
        self.most.fetch_max(spoken, Ordering::Relaxed).max(spoken)
    }

    /// What is spoken when, by what is known now: numbers of samples, each with the byte of the text up to which is
    /// spoken there, in order. They are where that grows, looked at every so many samples, and the end of what is known;
    /// when the speech is over that is the end of both. Unlike [`SpokenText::at`] this does not hold on to what was
    /// thought before.
    pub fn marks(&self, every: u64) -> Vec<(u64, usize)> {
        self.lock().marks(every)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a speech from any thread.
#[derive(Debug, Clone)]
pub struct Canceller {
    cancelled: Arc<AtomicBool>,
    text: Option<TextHandle>,
}

impl Canceller {
    /// The speech gives no more chunks. A frame that is being made is finished first, and thrown away.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(text) = &self.text {
            text.cancel();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A speech in the making: an iterator over its chunks. Each is made when it is asked for, in the thread that asks; with a
/// live text, it waits for the text. After an error there are no more.
pub struct Speech {
    tts: Tts,
    voice: Voice,
    spec: PromptSpec,
    sampling: SpeechSampling,
    options: SpeakOptions,
    texts: Texts,
    segment: Option<Segment>,
    segments: u64,
    codec: CodecStream,
    fades: Fades,
    spoken: SpokenText,
    /// Where the text of the last chunk ends. What is played is behind it, and has its own account in `spoken`.
    chunked: usize,
    canceller: Canceller,
    /// Frames made.
    frames: u64,
    /// Samples given out.
    given: u64,
    fed: usize,
    stopped: Option<Stop>,
    finish: Option<Finish>,
    done: bool,
}

/// What is still to be spoken.
enum Texts {
    Known(VecDeque<text::Segment>),
    Live(Option<TextReader>),
}

/// What is being spoken in one go.
struct Segment {
    frames: Frames,
    feed: TextFeed<'static>,
    guard: Guard,
    /// The frame that the talker has not been given back yet.
    last: Option<Vec<u32>>,
}

impl Tts {
    /// Speaks a text.
    ///
    /// # Errors
    /// [`Error::EmptyText`]; a voice or a language that the model does not have.
    pub fn speak(&self, text: &str, voice: &Voice, options: &SpeakOptions) -> Result<Speech> {
        let most = if voice.is_described() { usize::MAX } else { options.segment_tokens };
        let texts = prepare(self.tokenizer(), text, most)?.into();
        let layout = options.layout.unwrap_or(self.default_layout());
        Speech::new(self, voice, options, layout, Texts::Known(texts))
    }

    /// Speaks a text while it is being written: what is pushed into the writer is spoken as soon as it can be.
    ///
    /// One token of the text goes with every frame. Where the text runs dry, the speech waits: it gives out what it has
    /// and goes on when there is more. A cloned voice that continues a recording begins only when the text is as long as
    /// the recording, or finished; without the recording's text it begins with the first word.
    ///
    /// # Errors
    /// As [`Tts::speak`]; [`Error::NotStreaming`] for options that ask for the whole text first.
    pub fn speak_live(
        &self,
        voice: &Voice,
        options: &SpeakOptions,
    ) -> Result<(TextWriter, Speech)> {
        if options.layout == Some(TextLayout::Whole) {
            return Err(Error::NotStreaming);
        }
        let (writer, reader) = live_text(self.tokenizer(), options.live.clone());
        let texts = Texts::Live(Some(reader));
        let speech = Speech::new(self, voice, options, TextLayout::Streaming, texts)?;
        Ok((writer, speech))
    }
}

impl Speech {
    fn new(
        tts: &Tts,
        voice: &Voice,
        options: &SpeakOptions,
        layout: TextLayout,
        texts: Texts,
    ) -> Result<Self> {
        let sampling = options.sampling.clone().unwrap_or_else(|| tts.sampling().clone());
        let timeline = Arc::new(Mutex::new(Timeline::new(tts.sample_rate())));
        let text = match &texts {
            Texts::Live(Some(reader)) => Some(reader.handle()),
            _ => None,
        };
        let rate = f64::from(tts.sample_rate());
        Ok(Self {
            spec: tts.prompt_spec(voice, &options.language, layout)?,
            codec: tts.codec_stream(voice)?,
            tts: tts.clone(),
            voice: voice.clone(),
            sampling,
            fades: Fades::new((options.fade.as_secs_f64() * rate) as usize),
            options: options.clone(),
            texts,
            segment: None,
            segments: 0,
            spoken: SpokenText { timeline, most: Arc::default() },
            chunked: 0,
            canceller: Canceller { cancelled: Arc::default(), text },
            frames: 0,
            given: 0,
            fed: 0,
            stopped: None,
            finish: None,
            done: false,
        })
    }

    /// What ends this speech from elsewhere.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// What says how much of the text is spoken.
    pub fn spoken_text(&self) -> SpokenText {
        self.spoken.clone()
    }

    /// Why the speech ended; `None` while it goes on, and after an error.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Frames made so far, of [`Tts::samples_per_frame`] samples each.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    fn chunk(&mut self) -> Result<Option<Chunk>> {
        let wanted = match self.frames {
            0 => self.options.first_chunk_frames,
            _ => self.options.chunk_frames,
        };
        let mut codes = Vec::new();
        let mut frames = 0;
        while frames < wanted.max(1) && self.finish.is_none() {
            if frames > 0 && self.is_dry() {
                break;
            }
            if let Some(frame) = self.frame()? {
                codes.extend(frame);
                frames += 1;
            }
        }
        if self.canceller.is_cancelled() {
            self.finish = Some(Finish::Cancelled);
            return Ok(None);
        }
        let mut samples = self.codec.decode(&codes)?;
        if let Some(stop) = self.segment.as_mut().and_then(|s| s.guard.samples(&samples)) {
            self.end_segment(Some(stop));
        }
        samples = self.fades.push(samples);
        if self.finish.is_some() {
            samples.extend(self.fades.finish());
        }
        if samples.is_empty() {
            return Ok(None);
        }
        let first_sample = self.given;
        self.given += samples.len() as u64;
        let end = self.spoken.lock().spoken(self.given).max(self.chunked);
        let text = std::mem::replace(&mut self.chunked, end)..end;
        Ok(Some(Chunk { samples, first_sample, text, fed: self.fed }))
    }

    /// The next frame; `None` where a segment ended, or all of them.
    fn frame(&mut self) -> Result<Option<Vec<u32>>> {
        if self.canceller.is_cancelled() {
            self.finish = Some(Finish::Cancelled);
            return Ok(None);
        }
        let Some(segment) = &mut self.segment else {
            self.begin_segment()?;
            return Ok(None);
        };
        if let Some(last) = segment.last.take() {
            if segment.frames.room() == 0 {
                self.finish = Some(Finish::Context);
                return Ok(None);
            }
            let id = segment.feed.next_id(self.tts.config())?;
            segment.frames.feed(&last, id)?;
            self.note_fed();
        }
        let Some(segment) = &mut self.segment else { return Ok(None) };
        let Some(frame) = segment.frames.next_frame()? else {
            self.end_segment(None);
            return Ok(None);
        };
        self.frames += 1;
        let stop = segment.guard.frame(&frame);
        segment.last = Some(frame.clone());
        if stop.is_some() {
            self.end_segment(stop);
        }
        Ok(Some(frame))
    }

    /// Starts on the next text, or ends the speech.
    fn begin_segment(&mut self) -> Result<()> {
        let next = match &mut self.texts {
            Texts::Known(texts) => {
                texts.pop_front().map(|text| (Some(text.text.start), TextFeed::of(text.tokens)))
            }
            Texts::Live(reader) => {
                reader.take().map(|mut reader| (None, TextFeed::new(move || reader.wait())))
            }
        };
        let Some((first_byte, mut feed)) = next else {
            self.finish = Some(self.stopped.map_or(Finish::EndOfSpeech, Finish::Guard));
            return Ok(());
        };
        let prefix = self.tts.prefix(&self.voice, &self.spec)?;
        let opening = self.tts.talker().opening(&self.spec, &mut feed)?;
        let seed = self.options.seed.wrapping_add(self.segments);
        let sampling = self.sampling.clone().with_seed(seed);
        let frames = Frames::begin(self.tts.talker(), prefix, &opening, &sampling)?;
        let mut guard = self.options.guard.clone();
        guard.max_frames = guard.max_frames.map(|most| most.saturating_sub(self.frames as usize));
        let guard = Guard::new(guard, self.tts.sample_rate());
        self.segment = Some(Segment { frames, feed, guard, last: None });
        self.segments += 1;
        let sample = self.sample();
        self.spoken.lock().begin(sample, first_byte.unwrap_or(0));
        self.note_fed();
        Ok(())
    }

    /// Ends the segment; a guard that ended it, rather than the model, says so.
    fn end_segment(&mut self, stop: Option<Stop>) {
        let sample = self.sample();
        self.spoken.lock().end(sample);
        self.segment = None;
        self.stopped = self.stopped.or(stop);
        let most = self.options.guard.max_frames.unwrap_or(usize::MAX);
        if self.frames >= most as u64 {
            self.finish = Some(Finish::Guard(Stop::Length));
        }
    }

    /// Tells the guard and the timeline of the tokens that were fed.
    fn note_fed(&mut self) {
        let sample = self.sample();
        let Some(segment) = &mut self.segment else { return };
        let mut timeline = self.spoken.lock();
        for token in segment.feed.take_fed() {
            segment.guard.text(1);
            timeline.feed(&token, sample);
            self.fed = self.fed.max(token.token.text.end);
        }
    }

    /// The sample that the next frame begins with.
    fn sample(&self) -> u64 {
        self.frames * self.tts.samples_per_frame() as u64
    }

    /// Whether the next frame would have to wait for text.
    fn is_dry(&self) -> bool {
        let ended = self.segment.as_ref().is_none_or(|segment| segment.feed.has_ended());
        !ended && self.canceller.text.as_ref().is_some_and(TextHandle::is_dry)
    }
}

impl Iterator for Speech {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let chunk = self.chunk();
            self.done = self.finish.is_some() || chunk.is_err();
            match chunk {
                // A live text that is cancelled says so from within; to the caller it is an end.
                Err(Error::TextCancelled) => self.finish = Some(Finish::Cancelled),
                Err(error) => return Some(Err(error)),
                Ok(Some(chunk)) => return Some(Ok(chunk)),
                Ok(None) => {}
            }
        }
        None
    }
}

impl std::fmt::Debug for Speech {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speech")
            .field("voice", &self.voice)
            .field("frames", &self.frames)
            .field("finish", &self.finish)
            .finish_non_exhaustive()
    }
}
