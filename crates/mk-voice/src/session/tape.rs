//! What a conversation sounded like: the recorder's side of it.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::audio::Resampler;
use crate::protocol::AudioFrame;
use crate::record::{RecordError, Recording};

/// What may wait to be written: some five seconds of both sides.
const WAITING: usize = 512;
/// How long what is left may take to be written when the conversation is over.
const LAST: Duration = Duration::from_secs(10);

/// Records what was heard on both sides. What was sent ahead is written when its time has come, so that what the client
/// threw away is not in the recording.
///
/// The files are written by a thread of their own: a conversation does not wait for a disk.
pub(super) struct Tape {
    writer: Option<Writer>,
    ahead: VecDeque<(Duration, AudioFrame)>,
    held: Option<Duration>,
}

struct Writer {
    /// From the client's rate to the recording's.
    resampler: Resampler,
    rate: u32,
    /// `None` once it has failed.
    entries: Option<mpsc::Sender<Entry>>,
    written: JoinHandle<()>,
}

/// Something to be written.
enum Entry {
    User(Duration, Vec<i16>),
    Assistant(Duration, Vec<i16>),
    Event(Duration, Value),
}

impl Tape {
    /// Records at `rate`, which is that of the assistant's samples; the user's are at `user_rate`.
    ///
    /// # Errors
    /// The file cannot be written, or the rates cannot be; for people.
    pub fn new(path: &Path, user_rate: u32, rate: u32) -> Result<Self, String> {
        let resampler = Resampler::new(user_rate, rate).map_err(|error| error.to_string())?;
        let recording = Recording::create(path, rate).map_err(|error| error.to_string())?;
        let (entries, waiting) = mpsc::channel(WAITING);
        let written = spawn_blocking(move || {
            if let Err(error) = write(recording, waiting) {
                tracing::error!("the recording is not complete: {error}");
            }
        });
        let writer = Some(Writer { resampler, rate, entries: Some(entries), written });
        Ok(Self { writer, ..Self::off() })
    }

    /// Records nothing.
    pub fn off() -> Self {
        Self { writer: None, ahead: VecDeque::new(), held: None }
    }

    /// The user's samples, the last of them at `now`.
    pub fn user(&mut self, samples: &[i16], now: Duration) {
        let Some(writer) = &mut self.writer else { return };
        let samples = writer.resampler.push(samples);
        let long = Duration::from_secs_f64(samples.len() as f64 / f64::from(writer.rate));
        self.add(Entry::User(now.saturating_sub(long), samples));
    }

    /// A frame that the client will play at `at`.
    pub fn assistant(&mut self, frame: AudioFrame, at: Duration) {
        if self.writer.is_some() {
            self.ahead.push_back((at, frame));
        }
    }

    pub fn pause(&mut self, now: Duration) {
        self.settle(now);
        self.held.get_or_insert(now);
    }

    pub fn resume(&mut self, now: Duration) {
        if let Some(since) = self.held.take() {
            self.ahead.iter_mut().for_each(|(at, _)| *at += now.saturating_sub(since));
        }
    }

    pub fn flush(&mut self, now: Duration) {
        self.settle(now);
        self.ahead.clear();
        self.held = None;
    }

    /// Writes what has been played by now.
    pub fn settle(&mut self, now: Duration) {
        let now = self.held.unwrap_or(now);
        while let Some((at, frame)) = self.ahead.pop_front_if(|(at, _)| *at <= now) {
            self.add(Entry::Assistant(at, frame.samples));
        }
    }

    pub fn event(&mut self, now: Duration, event: Value) {
        self.add(Entry::Event(now, event));
    }

    /// Until all is written.
    pub async fn finish(mut self) {
        let last = self.ahead.back().map_or(Duration::ZERO, |&(at, _)| at);
        self.settle(last);
        if let Some(Writer { entries, written, .. }) = self.writer.take() {
            drop(entries);
            if timeout(LAST, written).await.is_err() {
                tracing::error!("the recording is not complete: the disk is too slow");
            }
        }
    }

    /// A recording that fails ends; the conversation does not.
    fn add(&mut self, entry: Entry) {
        let Some(writer) = &mut self.writer else { return };
        let Some(entries) = &writer.entries else { return };
        match entries.try_send(entry) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => {
                tracing::error!("the recording ends: the disk is too slow");
            }
            // The writer says why.
            Err(TrySendError::Closed(_)) => {}
        }
        writer.entries = None;
    }
}

fn write(mut recording: Recording, mut entries: mpsc::Receiver<Entry>) -> Result<(), RecordError> {
    let mut result = Ok(());
    while result.is_ok()
        && let Some(entry) = entries.blocking_recv()
    {
        result = match entry {
            Entry::User(at, samples) => recording.user(at, &samples),
            Entry::Assistant(at, samples) => recording.assistant(at, &samples),
            Entry::Event(at, event) => recording.event(at, &event),
        };
    }
    result.and(recording.finish())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_recording_that_can_go_on_no_more_keeps_what_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.wav");
        let mut tape = Tape::new(&path, 24_000, 24_000).unwrap();
        tape.user(&[7; 24_000], Duration::from_secs(1));
        tape.event(Duration::from_secs(1), json!("heard"));
        // More than a WAV file holds.
        let late = Duration::from_secs(100 * 3600);
        tape.user(&[7; 240], late);
        for _ in 0..2 * WAITING {
            tape.event(late, json!("never"));
            tokio::task::yield_now().await;
        }
        tape.finish().await;
        let sound = hound::WavReader::open(&path).unwrap();
        assert!((23_000..=24_000).contains(&sound.duration()), "{} frames", sound.duration());
        let timeline = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let events: Vec<Value> = serde_json::from_str(&timeline).unwrap();
        assert_eq!(events.len(), 1, "{timeline}");
        assert_eq!(events[0]["event"], "heard");
    }

    #[tokio::test]
    async fn what_was_sent_ahead_is_recorded_unless_it_was_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.wav");
        let mut tape = Tape::new(&path, 24_000, 24_000).unwrap();
        for (piece, sample) in [(0u64, 100), (1, 200), (2, 300)] {
            let frame =
                AudioFrame { epoch: 1, first_sample: piece * 2400, samples: vec![sample; 2400] };
            tape.assistant(frame, Duration::from_millis(100 * piece));
        }
        tape.flush(Duration::from_millis(150));
        tape.finish().await;
        let mut sound = hound::WavReader::open(&path).unwrap();
        let right: Vec<i16> =
            sound.samples::<i16>().skip(1).step_by(2).map(Result::unwrap).collect();
        assert_eq!((right.len(), right[0], right[4799]), (4800, 100, 200));
    }
}
