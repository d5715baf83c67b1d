//! Two sides of a conversation as a WAV file that is whole at any time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{RecordError, Side};

/// How far back sound may still come or be replaced.
const WINDOW: Duration = Duration::from_secs(5);

/// How much sound may be in memory only.
const UNWRITTEN: Duration = Duration::from_millis(500);

/// How far sound may be from the end of what came before to be taken for its continuation.
const TOLERANCE: Duration = Duration::from_millis(60);

/// Bytes of the header, and of a frame: a sample of each side.
const HEADER: u64 = 44;
const FRAME: u64 = 4;

/// Most frames of a WAV file, whose sizes have 32 bits.
const MAX_FRAMES: u64 = (u32::MAX as u64 - HEADER) / FRAME;

/// A stereo WAV file. Its last seconds are in memory, too, and may still change.
#[derive(Debug)]
pub(super) struct Sound {
    file: File,
    path: PathBuf,
    rate: u32,
    /// Frame of the file that the window begins with.
    base: u64,
    window: VecDeque<[i16; 2]>,
    /// Frames that differ from those of the file.
    unwritten: Range<u64>,
    /// Where the last sound of each side ends.
    ends: [u64; 2],
    dropped: u64,
}

impl Sound {
    pub(super) fn new(file: File, path: PathBuf, rate: u32) -> Result<Self, RecordError> {
        let mut sound = Self {
            file,
            path,
            rate: rate.max(1),
            base: 0,
            window: VecDeque::new(),
            unwritten: 0..0,
            ends: [0; 2],
            dropped: 0,
        };
        sound.write()?;
        Ok(sound)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn add(
        &mut self,
        side: Side,
        at: Duration,
        samples: &[i16],
    ) -> Result<(), RecordError> {
        let channel = match side {
            Side::User => 0,
            Side::Assistant => 1,
        };
        let mut start = self.frames(at);
        if start.abs_diff(self.ends[channel]) <= self.frames(TOLERANCE) {
            start = self.ends[channel];
        }
        if start.saturating_add(samples.len() as u64) > MAX_FRAMES {
            return Err(RecordError::TooLong { path: self.path.clone(), at });
        }
        self.reach(start)?;
        // A second at a time, so that the window stays small however much comes at once.
        for (part, start) in
            samples.chunks(self.rate as usize).zip((start..).step_by(self.rate as usize))
        {
            self.reach(start + part.len() as u64)?;
            self.put(channel, start, part);
        }
        self.ends[channel] = start + samples.len() as u64;
        if self.unwritten.end - self.unwritten.start >= self.frames(UNWRITTEN) {
            self.write()?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), RecordError> {
        self.write()
    }

    fn frames(&self, at: Duration) -> u64 {
        let frames = (at.as_nanos() * u128::from(self.rate) + 500_000_000) / 1_000_000_000;
        u64::try_from(frames).unwrap_or(u64::MAX)
    }

    /// The frame after the last.
    fn end(&self) -> u64 {
        self.base + self.window.len() as u64
    }

    /// Makes the file at least so many frames long, with silence.
    fn reach(&mut self, frames: u64) -> Result<(), RecordError> {
        while self.end() < frames {
            let end = self.end();
            let more = (frames - end).min(u64::from(self.rate));
            self.window.resize(self.window.len() + more as usize, [0; 2]);
            self.touch(end..end + more);
            let excess = (self.window.len() as u64).saturating_sub(self.frames(WINDOW));
            if excess > 0 {
                if self.unwritten.start < self.base + excess {
                    self.write()?;
                }
                self.window.drain(..excess as usize);
                self.base += excess;
            }
        }
        Ok(())
    }

    fn put(&mut self, channel: usize, start: u64, samples: &[i16]) {
        let late = self.base.saturating_sub(start).min(samples.len() as u64);
        self.dropped += late;
        let samples = &samples[late as usize..];
        let from = start.max(self.base);
        let frames = self.window.iter_mut().skip((from - self.base) as usize);
        for (frame, &sample) in frames.zip(samples) {
            frame[channel] = sample;
        }
        if !samples.is_empty() {
            self.touch(from..from + samples.len() as u64);
        }
    }

    fn touch(&mut self, frames: Range<u64>) {
        self.unwritten = if self.unwritten.is_empty() {
            frames
        } else {
            self.unwritten.start.min(frames.start)..self.unwritten.end.max(frames.end)
        };
    }

    /// Writes what the file does not have yet, then the header that says so.
    fn write(&mut self) -> Result<(), RecordError> {
        self.try_write().map_err(|source| RecordError::Io { path: self.path.clone(), source })
    }

    fn try_write(&mut self) -> io::Result<()> {
        let Range { start, end } = self.unwritten.clone();
        let frames = self
            .window
            .range((start - self.base.min(start)) as usize..(end - self.base.min(end)) as usize);
        let bytes: Vec<u8> = frames.flatten().flat_map(|sample| sample.to_le_bytes()).collect();
        self.file.seek(SeekFrom::Start(HEADER + start * FRAME))?;
        self.file.write_all(&bytes)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header(self.rate, self.end()))?;
        self.unwritten = 0..0;
        Ok(())
    }
}

/// The header of a WAV file of two channels of 16 bits, by the specification of Microsoft and IBM of 1991.
fn header(rate: u32, frames: u64) -> [u8; HEADER as usize] {
    let data = (frames * FRAME) as u32;
    let mut header = [0; HEADER as usize];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        header[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"RIFF");
    put(&(data + HEADER as u32 - 8).to_le_bytes());
    put(b"WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&1u16.to_le_bytes());
    put(&2u16.to_le_bytes());
    put(&rate.to_le_bytes());
    put(&rate.wrapping_mul(FRAME as u32).to_le_bytes());
    put(&(FRAME as u16).to_le_bytes());
    put(&16u16.to_le_bytes());
    put(b"data");
    put(&data.to_le_bytes());
    header
}
