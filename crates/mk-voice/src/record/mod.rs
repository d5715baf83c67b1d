//! A conversation on disk: both sides as stereo WAV, what happened as JSON.

mod sound;
mod timeline;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sound::Sound;
use timeline::Timeline;

/// A recording that cannot be made or goes on no more.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file cannot be made or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The sound would be longer than a WAV file can be.
    #[error("{}: a WAV file holds no sound at {} seconds", path.display(), at.as_secs())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Where in the recording the sound would be.
        at: Duration,
    },
}

/// The recording of a conversation: the user on the left, the assistant on the right.
///
/// It takes what it is given and nothing else. Both files are whole at any time but for the last second, should the
/// program end without [`Recording::finish`].
#[derive(Debug)]
pub struct Recording {
    sound: Sound,
    timeline: Timeline,
}

/// One side of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    User,
    Assistant,
}

impl Recording {
    /// Begins a recording at `rate` samples a second. A path that ends with `.wav` is the sound's, and a file that is
    /// there is replaced; any other is a directory, in which the recording gets a name that no other has,
    /// `conversation-1.wav` say. The timeline has the same name, with `.json`. Directories are made.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn create(path: &Path, rate: u32) -> Result<Self, RecordError> {
        let is_file = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("wav"));
        let (path, sound) = if is_file { replaced(path)? } else { fresh(path)? };
        let sound = Sound::new(sound, path.clone(), rate)?;
        let timeline = Timeline::create(path.with_extension("json"))?;
        Ok(Self { sound, timeline })
    }

    /// The WAV file.
    pub fn path(&self) -> &Path {
        self.sound.path()
    }

    /// The JSON file.
    pub fn timeline_path(&self) -> &Path {
        self.timeline.path()
    }

    /// The user is heard, from `at` on. Sound that joins what came before within 60 ms is put right behind it.
    ///
    /// Where there is sound already it is replaced; what is more than five seconds behind the newest is fixed, and
    /// sound that comes so late is dropped, and counted.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn user(&mut self, at: Duration, samples: &[i16]) -> Result<(), RecordError> {
        self.sound.add(Side::User, at, samples)
    }

    /// The assistant is heard, as [`Recording::user`].
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn assistant(&mut self, at: Duration, samples: &[i16]) -> Result<(), RecordError> {
        self.sound.add(Side::Assistant, at, samples)
    }

    /// Something happens: the timeline gets `{"at": seconds, "event": event}`.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn event(&mut self, at: Duration, event: &serde_json::Value) -> Result<(), RecordError> {
        self.timeline.add(at, event)
    }

    /// Samples, of either side, that came too late to be put where they belong.
    pub fn dropped(&self) -> u64 {
        self.sound.dropped()
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn finish(mut self) -> Result<(), RecordError> {
        self.sound.finish()
    }
}

/// A WAV file in a directory, with a name that is new.
fn fresh(directory: &Path) -> Result<(PathBuf, fs::File), RecordError> {
    let made = fs::create_dir_all(directory);
    made.map_err(|source| RecordError::Io { path: directory.to_owned(), source })?;
    let mut number = 1u32;
    loop {
        let path = directory.join(format!("conversation-{number}.wav"));
        match fs::File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => number += 1,
            Err(source) => return Err(RecordError::Io { path, source }),
        }
    }
}

/// A WAV file of a name that was given.
fn replaced(path: &Path) -> Result<(PathBuf, fs::File), RecordError> {
    let error = |source| RecordError::Io { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(error)?;
    }
    let file = fs::File::create(path).map_err(error)?;
    Ok((path.to_owned(), file))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RATE: u32 = 24_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The samples of both sides.
    fn read(path: &Path) -> (Vec<i16>, Vec<i16>) {
        let mut reader = hound::WavReader::open(path).expect("a WAV file");
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (2, RATE, 16));
        let samples: Vec<i16> = reader.samples().map(|sample| sample.expect("a sample")).collect();
        samples.as_chunks::<2>().0.iter().map(|&[left, right]| (left, right)).unzip()
    }

    #[test]
    fn both_sides_are_where_they_were_heard() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut recording = Recording::create(dir.path(), RATE).expect("a recording");
        assert_eq!(recording.path(), dir.path().join("conversation-1.wav"));
        recording.user(ms(0), &[1; 2_400]).expect("room");
        // Late by less than the tolerance: right behind.
        recording.user(ms(130), &[2; 2_400]).expect("room");
        recording.assistant(ms(150), &[3; 2_400]).expect("room");
        recording.user(ms(1_000), &[4; 240]).expect("room");
        assert_eq!(recording.dropped(), 0);
        let path = recording.path().to_owned();
        recording.finish().expect("a file");
        let (user, assistant) = read(&path);
        let parts = |side: &[i16]| {
            side.chunk_by(|a, b| a == b).map(|run| (run[0], run.len())).collect::<Vec<_>>()
        };
        assert_eq!(parts(&user), [(1, 2_400), (2, 2_400), (0, 19_200), (4, 240)]);
        assert_eq!(parts(&assistant), [(0, 3_600), (3, 2_400), (0, 18_240)]);
        let other =
            Recording::create(&dir.path().join("new"), RATE).expect("a recording elsewhere");
        assert_eq!(other.path(), dir.path().join("new/conversation-1.wav"));
        let next = Recording::create(dir.path(), RATE).expect("a second recording");
        assert_eq!(next.path(), dir.path().join("conversation-2.wav"));
    }

    #[test]
    fn files_are_whole_before_they_are_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("new/talk.wav");
        let mut recording = Recording::create(&path, RATE).expect("a recording");
        assert!(read(&path).0.is_empty());
        for i in 0..100 {
            recording.user(ms(i * 100), &[7; 2_400]).expect("room");
            recording.event(ms(i * 100), &json!({"kind": "tick", "number": i})).expect("room");
            let (user, _) = read(&path);
            assert!(
                user.len() as u64 + u64::from(RATE) >= (i + 1) * 2_400,
                "{} after {i}",
                user.len()
            );
            assert!(user.iter().all(|&sample| sample == 7));
            let timeline = fs::read(recording.timeline_path()).expect("a timeline");
            let timeline: Vec<serde_json::Value> = serde_json::from_slice(&timeline).expect("JSON");
            assert_eq!(timeline.len() as u64, i + 1);
            assert_eq!(timeline[i as usize]["event"]["number"], i);
            assert_eq!(timeline[i as usize]["at"], i as f64 / 10.0);
        }
        drop(recording);
        let timeline = fs::read(path.with_extension("json")).expect("a timeline");
        assert!(serde_json::from_slice::<serde_json::Value>(&timeline).is_ok());
    }

    #[test]
    fn an_empty_recording_is_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let recording = Recording::create(dir.path(), RATE).expect("a recording");
        let (path, timeline) = (recording.path().to_owned(), recording.timeline_path().to_owned());
        recording.finish().expect("a file");
        assert!(read(&path).0.is_empty());
        assert_eq!(fs::read_to_string(timeline).expect("a timeline").trim(), "[\n]");
    }

    #[test]
    fn what_comes_far_too_late_is_dropped_and_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut recording = Recording::create(dir.path(), RATE).expect("a recording");
        recording.user(ms(20_000), &[1; 2_400]).expect("room");
        recording.assistant(ms(16_000), &[2; 2_400]).expect("room");
        recording.assistant(ms(10_000), &[3; 2_400]).expect("room");
        assert_eq!(recording.dropped(), 2_400);
        let path = recording.path().to_owned();
        recording.finish().expect("a file");
        let (user, assistant) = read(&path);
        assert_eq!(user.len(), 20 * 24_000 + 2_400);
        assert!(assistant.iter().all(|&sample| sample != 3));
        assert_eq!(assistant.iter().position(|&sample| sample == 2), Some(16 * 24_000));
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("a file");
        let error = Recording::create(&file.join("a.wav"), RATE).unwrap_err();
        assert!(error.to_string().contains("a.wav"), "{error}");
        let mut recording = Recording::create(dir.path(), RATE).expect("a recording");
        let error = recording.user(Duration::MAX, &[1]).unwrap_err();
        assert!(matches!(error, RecordError::TooLong { .. }), "{error}");
        assert!(error.to_string().contains("conversation-1.wav"), "{error}");
        recording.user(ms(0), &[1]).expect("an error changes nothing");
    }
}
