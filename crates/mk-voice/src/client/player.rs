//! What a client does with the audio it is sent.

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::{AudioFrame, ClientMessage, ServerMessage};

/// Seconds of audio that are kept at most: the loop sends a fraction of a second ahead.
const MOST_SECONDS: usize = 30;

/// Plays what it is sent, when it is asked for samples, and says what it played. It does no I/O: it is pulled by whatever
/// has a clock, a sound card or a timer.
#[derive(Debug)]
pub struct Player {
    sample_rate: u32,
    epoch: u32,
    queue: VecDeque<i16>,
    played: u64,
    /// Samples that the epoch has, once it is known.
    ends: Option<u64>,
    paused: bool,
    /// Whether it has to wait until there is enough again to play without a gap.
    starved: bool,
    underruns: u32,
}

impl Player {
    /// A player of audio at `sample_rate`.
    pub fn new(sample_rate: u32) -> Self {
        Self {
            sample_rate,
            epoch: 0,
            queue: VecDeque::new(),
            played: 0,
            ends: None,
            paused: false,
            starved: true,
            underruns: 0,
        }
    }

    /// Does what a message says; what the loop has to be told at once, if anything.
    pub fn take(&mut self, message: &ServerMessage) -> Option<ClientMessage> {
        match *message {
            ServerMessage::Audio(ref frame) => self.queue(frame),
            ServerMessage::AudioEnd { epoch, samples } if epoch == self.epoch => {
                self.ends = Some(samples);
            }
            ServerMessage::Pause { epoch } if epoch == self.epoch => {
                self.paused = true;
                return Some(self.report());
            }
            ServerMessage::Resume { epoch } if epoch == self.epoch => self.paused = false,
            ServerMessage::Flush { epoch } => {
                if epoch > self.epoch {
                    self.begin(epoch);
                }
                if epoch == self.epoch {
                    self.queue.clear();
                    self.ends = Some(self.played);
                    self.paused = false;
                    return Some(ClientMessage::Flushed { epoch, samples: self.played });
                }
            }
            _ => {}
        }
        None
    }

    fn queue(&mut self, frame: &AudioFrame) {
        if frame.epoch < self.epoch {
            return;
        }
        if frame.epoch > self.epoch {
            self.begin(frame.epoch);
        }
        let due = self.played + self.queue.len() as u64;
        let room = (MOST_SECONDS * self.sample_rate as usize).saturating_sub(self.queue.len());
        // What does not follow on what is there belongs to something that was flushed.
        if frame.first_sample == due && self.ends.is_none() {
            self.queue.extend(frame.samples.iter().take(room));
        }
    }

    fn begin(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.queue.clear();
        self.played = 0;
        self.ends = None;
        self.paused = false;
        self.starved = true;
        self.underruns = 0;
    }

    /// Fills `out` with what is to be heard now; silence where there is nothing.
    pub fn play(&mut self, out: &mut [i16]) {
        out.fill(0);
        let complete = self.ends.is_some_and(|ends| self.played + self.queue.len() as u64 >= ends);
        // 60 ms before it begins, and after a gap, so that the next hiccup is not another.
        let enough = self.queue.len() * 1000 >= 60 * self.sample_rate as usize;
        if self.paused || self.queue.is_empty() || (self.starved && !enough && !complete) {
            return;
        }
        self.starved = false;
        let count = out.len().min(self.queue.len());
        for (out, sample) in out.iter_mut().zip(self.queue.drain(..count)) {
            *out = sample;
        }
        self.played += count as u64;
        if self.queue.is_empty() && !complete {
            self.starved = true;
            self.underruns += 1;
        }
    }

    /// Samples that are heard in a time.
    pub fn samples_in(&self, time: Duration) -> usize {
        (time.as_secs_f64() * f64::from(self.sample_rate)).round() as usize
    }

    /// What has been played.
    pub fn report(&self) -> ClientMessage {
        let &Self { epoch, played: samples, underruns, .. } = self;
        ClientMessage::Played { epoch, samples, underruns }
    }

    /// Whether there is nothing to be played.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio(epoch: u32, first_sample: u64, samples: usize) -> ServerMessage {
        ServerMessage::Audio(AudioFrame { epoch, first_sample, samples: vec![7; samples] })
    }

    /// Samples that are heard of the next `samples`.
    fn heard(player: &mut Player, samples: usize) -> usize {
        let mut out = vec![0; samples];
        player.play(&mut out);
        out.iter().filter(|&&sample| sample != 0).count()
    }

    fn played(player: &Player) -> (u32, u64, u32) {
        match player.report() {
            ClientMessage::Played { epoch, samples, underruns } => (epoch, samples, underruns),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_begins_with_enough_and_counts_the_gaps() {
        let mut player = Player::new(1000);
        player.take(&audio(1, 0, 50));
        assert_eq!(heard(&mut player, 10), 0);
        player.take(&audio(1, 50, 50));
        assert_eq!(heard(&mut player, 200), 100);
        assert_eq!(played(&player), (1, 100, 1));
        player.take(&audio(1, 100, 20));
        assert_eq!(heard(&mut player, 20), 0);
        player.take(&ServerMessage::AudioEnd { epoch: 1, samples: 120 });
        assert_eq!(heard(&mut player, 50), 20);
        assert_eq!(played(&player), (1, 120, 1));
    }

    #[test]
    fn a_pause_keeps_what_is_there_and_a_flush_does_not() {
        let mut player = Player::new(1000);
        player.take(&audio(1, 0, 300));
        assert_eq!(heard(&mut player, 100), 100);
        assert_eq!(player.take(&ServerMessage::Pause { epoch: 1 }), Some(player.report()));
        assert_eq!(heard(&mut player, 100), 0);
        player.take(&ServerMessage::Resume { epoch: 1 });
        assert_eq!(heard(&mut player, 100), 100);
        let answer = player.take(&ServerMessage::Flush { epoch: 1 });
        assert_eq!(answer, Some(ClientMessage::Flushed { epoch: 1, samples: 200 }));
        player.take(&audio(1, 300, 300));
        assert_eq!(heard(&mut player, 100), 0);
    }

    #[test]
    fn only_the_latest_epoch_is_heard() {
        let mut player = Player::new(1000);
        player.take(&audio(2, 0, 100));
        player.take(&audio(1, 0, 100));
        player.take(&ServerMessage::Pause { epoch: 1 });
        assert_eq!(heard(&mut player, 200), 100);
        player.take(&audio(3, 0, 100));
        assert_eq!(heard(&mut player, 200), 100);
        assert_eq!(played(&player).0, 3);
    }
}
