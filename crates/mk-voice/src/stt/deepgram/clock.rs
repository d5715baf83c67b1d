//! From the times of a connection to those of the input.

use std::collections::VecDeque;
use std::time::Duration;

use crate::stt::SAMPLE_RATE;

/// Pauses that are remembered. Times reported lie in the last few seconds, so a few are enough.
const PIECES: usize = 64;

/// Where in the input the audio of a connection is. Deepgram counts what it was sent on this connection, silence that
/// fills the pauses of the input included; the input is counted from its own beginning.
#[derive(Debug)]
pub(super) struct Clock {
    /// Samples sent on this connection.
    sent: u64,
    /// Position in the input of what is sent next.
    cursor: u64,
    /// From (samples sent) on the audio was that from (position in the input) on. Never empty.
    pieces: VecDeque<(u64, u64)>,
}

impl Clock {
    /// Of a connection whose first sample is the input's at `position`.
    pub(super) fn new(position: u64) -> Self {
        Self { sent: 0, cursor: position, pieces: VecDeque::from([(0, position)]) }
    }

    /// The input's next `count` samples were sent.
    pub(super) fn sent(&mut self, count: u64) {
        self.sent += count;
        self.cursor += count;
    }

    /// `count` samples of silence were sent that are not in the input.
    pub(super) fn filled(&mut self, count: u64) {
        self.sent += count;
        match self.pieces.back_mut() {
            // Still the same pause, or nothing was sent yet.
            Some(last) if last.1 == self.cursor => last.0 = self.sent,
            _ => self.pieces.push_back((self.sent, self.cursor)),
        }
        if self.pieces.len() > PIECES {
            self.pieces.pop_front();
        }
    }

    /// Samples of the input that could not be sent, being kept no longer, are passed over.
    pub(super) fn skip_to(&mut self, position: u64) {
        if position > self.cursor {
            self.cursor = position;
            self.pieces.push_back((self.sent, position));
            if self.pieces.len() > PIECES {
                self.pieces.pop_front();
            }
        }
    }

    /// Position in the input of what is sent next.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Samples sent on this connection.
    pub(super) fn total(&self) -> u64 {
        self.sent
    }

    /// Position in the input of a time of the connection, in seconds. What lies in a pause is where the pause is; what
    /// is no time, or after all that was sent, is at the cursor.
    pub(super) fn position(&self, seconds: f64) -> u64 {
        let samples = seconds * f64::from(SAMPLE_RATE);
        if !(0.0..self.sent as f64).contains(&samples) {
            return if samples < 0.0 { self.pieces[0].1 } else { self.cursor };
        }
        let samples = samples.round() as u64;
        let after = self.pieces.partition_point(|&(sent, _)| sent <= samples);
        let limit = self.pieces.get(after).map_or(self.cursor, |&(_, position)| position);
        match after.checked_sub(1).and_then(|at| self.pieces.get(at)) {
            Some(&(sent, position)) => (position + (samples - sent)).min(limit),
            None => self.pieces[0].1,
        }
    }
}

/// A position as a time.
pub(super) fn duration(samples: u64) -> Duration {
    Duration::from_secs(samples / u64::from(SAMPLE_RATE))
        + Duration::from_nanos(
            samples % u64::from(SAMPLE_RATE) * 1_000_000_000 / u64::from(SAMPLE_RATE),
        )
}

/// A time as samples.
pub(super) fn samples(duration: Duration) -> u64 {
    (duration.as_secs_f64() * f64::from(SAMPLE_RATE)).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_on_after_a_reconnect_and_around_silence() {
        let mut clock = Clock::new(32_000);
        clock.sent(16_000);
        assert_eq!(clock.position(0.5), 40_000);
        // Two pauses' worth of silence in one pause, then more of the input.
        clock.filled(8_000);
        clock.filled(8_000);
        assert_eq!((clock.total(), clock.cursor()), (32_000, 48_000));
        assert_eq!(clock.position(1.25), 48_000);
        clock.sent(16_000);
        assert_eq!(clock.position(0.5), 40_000);
        assert_eq!(clock.position(2.5), 56_000);
        assert_eq!(clock.position(3.5), 64_000);
        clock.skip_to(100_000);
        clock.sent(16_000);
        assert_eq!(clock.position(3.5), 108_000);
    }

    #[test]
    fn what_is_no_time_is_now() {
        let mut clock = Clock::new(16_000);
        clock.sent(16_000);
        for (seconds, position) in
            [(f64::NAN, 32_000), (f64::INFINITY, 32_000), (1e300, 32_000), (-1.0, 16_000)]
        {
            assert_eq!(clock.position(seconds), position, "{seconds}");
        }
    }

    #[test]
    fn any_number_of_pauses_is_borne() {
        let mut clock = Clock::new(0);
        for _ in 0..1000 {
            clock.sent(100);
            clock.filled(100);
        }
        assert!(clock.pieces.len() <= PIECES);
        assert_eq!(clock.position(1.0), clock.pieces[0].1);
        clock.sent(1000);
        assert_eq!(clock.position(200_500.0 / 16_000.0), 100_500);
    }

    #[test]
    fn times_and_positions_agree() {
        assert_eq!(duration(24_000), Duration::from_millis(1500));
        assert_eq!(samples(Duration::from_millis(1500)), 24_000);
    }
}
