//! A voice without a model: each word is a tone. For tests, for measuring everything but the speech, and for those who
//! build without a checkpoint.

use std::f32::consts::TAU;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Mark, Tts, TtsError, TtsEvent, Utterance};

/// Pieces of text, and events, that may wait to be taken.
const WAITING: usize = 64;
/// Tones of words, in Hz: a scale in which everything goes together.
const SCALE: [f32; 10] =
    [220.0, 246.94, 277.18, 329.63, 369.99, 440.0, 493.88, 554.37, 659.26, 739.99];
const LOUDNESS: f32 = 0.2;
/// How long a tone takes to come up and go down, so that it does not click.
const FADE: Duration = Duration::from_millis(5);
/// Bytes of one word, after which it is spoken as if it were over.
const MAX_WORD: usize = 256;

/// How to speak in tones.
#[derive(Debug, Clone, PartialEq)]
pub struct TonesOptions {
    /// Samples a second.
    pub sample_rate: u32,
    /// How long each character takes: those of words sound, white space is silent.
    pub character: Duration,
    /// The longest stretch of sound in one event.
    pub chunk: Duration,
    /// How long the first chunk takes to make, counted from the first text.
    pub first_chunk_delay: Duration,
    /// How long a second of sound takes to make, in seconds, as that of a model does. 0 takes no time.
    pub real_time_factor: f64,
}

impl Default for TonesOptions {
    fn default() -> Self {
        Self {
            sample_rate: 24_000,
            character: Duration::from_millis(60),
            chunk: Duration::from_millis(80),
            first_chunk_delay: Duration::ZERO,
            real_time_factor: 0.0,
        }
    }
}

/// What goes wrong in an utterance, on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails after so much sound.
    Fail(Duration),
    /// After so much sound nothing comes any more, and no end.
    Stall(Duration),
}

/// A voice of tones. The same word is always the same tone; where the text of a word ends is known exactly.
#[derive(Debug, Clone, Default)]
pub struct Tones {
    options: TonesOptions,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Tones {
    /// A voice of tones.
    pub fn new(options: TonesOptions) -> Self {
        Self { options, fault: Arc::default() }
    }

    /// Lets all utterances that begin from now on go wrong, or none any more.
    pub fn set_fault(&self, fault: Option<Fault>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

impl Tts for Tones {
    fn name(&self) -> String {
        "tones".into()
    }

    fn sample_rate(&self) -> u32 {
        self.options.sample_rate
    }

    fn speak(&self) -> Utterance {
        let (text, texts) = mpsc::channel(WAITING);
        let (sender, events) = mpsc::channel(WAITING);
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let options = self.options.clone();
        tokio::spawn(async move {
            let mut speaking = Speaking::new(options, fault, &sender);
            tokio::select! {
                () = sender.closed() => {}
                // Nobody listens any more, or all is said.
                _ = speaking.utter(texts) => {}
            }
        });
        Utterance { text, events }
    }
}

/// There is nothing more to be done.
struct Over;

/// One utterance.
struct Speaking<'a> {
    options: TonesOptions,
    fault: Option<Fault>,
    events: &'a mpsc::Sender<TtsEvent>,
    /// Where the sound and the text are; the mark of the last whole word.
    sample: u64,
    byte: usize,
    marks: Vec<Mark>,
    /// When the next sound is made.
    due: Option<Instant>,
}

impl<'a> Speaking<'a> {
    fn new(
        options: TonesOptions,
        fault: Option<Fault>,
        events: &'a mpsc::Sender<TtsEvent>,
    ) -> Self {
        let marks = vec![Mark::default()];
        Self { options, fault, events, sample: 0, byte: 0, marks, due: None }
    }

    async fn utter(&mut self, mut texts: mpsc::Receiver<String>) -> Result<(), Over> {
        let mut held = String::new();
        while let Some(text) = texts.recv().await {
            self.due.get_or_insert_with(|| Instant::now() + self.options.first_chunk_delay);
            held.push_str(&text);
            // A word is known when something follows it.
            while let Some(end) = word_end(&held) {
                let rest = held.split_off(end);
                self.say(&held).await?;
                held = rest;
            }
        }
        self.say(&held).await?;
        self.break_after(self.sample).await?;
        let marks = std::mem::take(&mut self.marks);
        self.tell(TtsEvent::Ended { marks }).await
    }

    /// Says a word, or is silent for white space.
    async fn say(&mut self, word: &str) -> Result<(), Over> {
        if word.is_empty() {
            return Ok(());
        }
        let rate = self.options.sample_rate;
        let length = word.chars().count() as f64 * self.options.character.as_secs_f64();
        let length = (length * f64::from(rate)).round() as usize;
        let pitch = (!word.starts_with(char::is_whitespace)).then(|| pitch(word));
        let chunk = samples(self.options.chunk, rate).max(1);
        let end = self.byte + word.len();
        for from in (0..length).step_by(chunk) {
            let to = length.min(from + chunk);
            let sound = (from..to).map(|at| pitch.map_or(0, |pitch| tone(pitch, at, length, rate)));
            self.wait(to - from).await;
            self.break_after(self.sample).await?;
            self.sample += (to - from) as u64;
            if to == length {
                self.byte = end;
            }
            let mark = Mark { sample: self.sample, byte: self.byte };
            self.tell(TtsEvent::Audio { samples: sound.collect(), mark }).await?;
        }
        self.byte = end;
        self.marks.push(Mark { sample: self.sample, byte: end });
        Ok(())
    }

    /// Takes as long as making so many samples does.
    async fn wait(&mut self, samples: usize) {
        let seconds = samples as f64 / f64::from(self.options.sample_rate.max(1));
        let time = Duration::try_from_secs_f64(seconds * self.options.real_time_factor);
        let due = self.due.unwrap_or_else(Instant::now);
        sleep_until(due).await;
        // What waited for its text does not catch up.
        self.due = Some(due.max(Instant::now()) + time.unwrap_or_default());
    }

    /// Does what the fault says, if it is time.
    async fn break_after(&self, sample: u64) -> Result<(), Over> {
        let now = |after| sample >= samples(after, self.options.sample_rate) as u64;
        match self.fault {
            Some(Fault::Fail(after)) if now(after) => {
                let (voice, reason) = ("tones".into(), "failed, as it was told to".into());
                self.tell(TtsEvent::Failed(TtsError { voice, reason })).await?;
                Err(Over)
            }
            Some(Fault::Stall(after)) if now(after) => std::future::pending().await,
            _ => Ok(()),
        }
    }

    async fn tell(&self, event: TtsEvent) -> Result<(), Over> {
        self.events.send(event).await.map_err(|_| Over)
    }
}

/// The end of the first stretch of `text` that is white space, or not; `None` if it may go on.
fn word_end(text: &str) -> Option<usize> {
    let space = text.starts_with(char::is_whitespace);
    let end = text.find(|c: char| c.is_whitespace() != space);
    end.or_else(|| (text.len() > MAX_WORD).then_some(text.len()))
}

fn pitch(word: &str) -> f32 {
    let hash =
        word.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    SCALE[hash as usize % SCALE.len()]
}

/// Sample `at` of a tone of so many.
fn tone(pitch: f32, at: usize, length: usize, rate: u32) -> i16 {
    let fade = samples(FADE, rate).max(1) as f32;
    let envelope = (at as f32 / fade).min((length - at) as f32 / fade).min(1.0);
    let wave = (TAU * pitch * at as f32 / rate as f32).sin();
    (LOUDNESS * envelope * wave * 32767.0).round() as i16
}

fn samples(time: Duration, rate: u32) -> usize {
    (time.as_secs_f64() * f64::from(rate)) as usize
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    async fn speak(tones: &Tones, pieces: &[&str]) -> Vec<TtsEvent> {
        let Utterance { text, mut events } = tones.speak();
        let pieces: Vec<String> = pieces.iter().map(ToString::to_string).collect();
        tokio::spawn(async move {
            for piece in pieces {
                let _ = text.send(piece).await;
            }
        });
        let mut all = Vec::new();
        while let Some(event) = events.recv().await {
            all.push(event);
        }
        all
    }

    fn sound(events: &[TtsEvent]) -> Vec<i16> {
        let samples = events.iter().filter_map(|event| match event {
            TtsEvent::Audio { samples, .. } => Some(samples.clone()),
            _ => None,
        });
        samples.flatten().collect()
    }

    fn marks(events: &[TtsEvent]) -> Vec<(u64, usize)> {
        let [.., TtsEvent::Ended { marks }] = events else { panic!("{events:?}") };
        marks.iter().map(|mark| (mark.sample, mark.byte)).collect()
    }

    #[tokio::test]
    async fn words_are_tones_of_a_known_length() {
        let events = speak(&Tones::default(), &["Hé", "llo  there"]).await;
        let letter = 1_440;
        assert_eq!(marks(&events), [(0, 0), (5 * letter, 6), (7 * letter, 8), (12 * letter, 13)]);
        let sound = sound(&events);
        assert_eq!(sound.len() as u64, 12 * letter);
        let loud = |from: u64, to: u64| {
            sound[(from * letter) as usize..(to * letter) as usize]
                .iter()
                .map(|x| x.unsigned_abs())
                .max()
        };
        assert!(loud(0, 5) > Some(6_000) && loud(7, 12) > Some(6_000));
        assert_eq!(loud(5, 7), Some(0));
        let (mut sample, mut byte) = (0, 0);
        for event in &events[..events.len() - 1] {
            let TtsEvent::Audio { samples, mark } = event else { panic!("{event:?}") };
            assert!(!samples.is_empty() && samples.len() <= 1_920);
            sample += samples.len() as u64;
            assert_eq!(mark.sample, sample);
            assert!(mark.byte >= byte);
            byte = mark.byte;
        }
        assert_eq!(byte, 13);
    }

    #[tokio::test]
    async fn how_a_text_is_cut_makes_no_difference() {
        let text = "One word, another wörd\nand one more.";
        let whole = speak(&Tones::default(), &[text]).await;
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(speak(&Tones::default(), &letters).await, whole);
        assert_eq!(marks(&speak(&Tones::default(), &[]).await), [(0, 0)]);
    }

    #[tokio::test]
    async fn a_word_is_spoken_when_it_is_known() {
        let Utterance { text, mut events } = Tones::default().speak();
        text.send("One tw".into()).await.expect("a listener");
        let mut last = Mark::default();
        while last.byte < 3 {
            let Some(TtsEvent::Audio { mark, .. }) = events.recv().await else { panic!("sound") };
            last = mark;
        }
        assert_eq!(last, Mark { sample: 3 * 1_440, byte: 3 });
        drop(text);
        let mut rest = Vec::new();
        while let Some(event) = events.recv().await {
            rest.push(event);
        }
        assert_eq!(marks(&rest).last(), Some(&(6 * 1_440, 6)));
    }

    #[tokio::test(start_paused = true)]
    async fn making_takes_as_long_as_it_is_told_to() {
        let options = TonesOptions {
            first_chunk_delay: Duration::from_millis(200),
            real_time_factor: 0.5,
            ..TonesOptions::default()
        };
        let Utterance { text, mut events } = Tones::new(options).speak();
        let begun = Instant::now();
        text.send("0123456789 ".repeat(5)).await.expect("a listener");
        drop(text);
        assert!(matches!(events.recv().await, Some(TtsEvent::Audio { .. })));
        assert_eq!(begun.elapsed().as_millis(), 200);
        while events.recv().await.is_some() {}
        // 55 letters of 60 ms, half of that, and the last chunk is there when it is due.
        let took = begun.elapsed().as_millis();
        assert!((200 + 1_550..=200 + 1_650).contains(&took), "{took} ms");
    }

    #[tokio::test]
    async fn faults_on_demand() {
        let tones = Tones::default();
        tones.set_fault(Some(Fault::Fail(Duration::from_millis(200))));
        let events = speak(&tones, &["Hello there"]).await;
        assert!(matches!(events.last(), Some(TtsEvent::Failed(_))));
        assert!((4_800..4_800 + 1_920).contains(&sound(&events).len()));
        // Even where there is less.
        tones.set_fault(Some(Fault::Fail(Duration::ZERO)));
        assert!(matches!(speak(&tones, &[]).await[..], [TtsEvent::Failed(_)]));

        tones.set_fault(Some(Fault::Stall(Duration::ZERO)));
        let Utterance { text, mut events } = tones.speak();
        drop(text);
        assert!(timeout(Duration::from_millis(100), events.recv()).await.is_err());
        tones.set_fault(None);
        assert_eq!(marks(&speak(&tones, &["x"]).await), [(0, 0), (1_440, 1)]);
    }

    #[tokio::test]
    async fn who_listens_no_more_ends_it() {
        let Utterance { text, events } = Tones::default().speak();
        drop(events);
        let closed = async {
            while text.send("x".into()).await.is_ok() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), closed).await.expect("an end");
    }
}
