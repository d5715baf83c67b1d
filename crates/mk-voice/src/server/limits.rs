//! How much a client may send in a time.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket that leaks: what comes faster than it leaks fills it, and it must not run over.
pub(super) struct Bucket {
    level: f64,
    room: f64,
    leak: f64,
    last: Instant,
}

impl Bucket {
    /// Holds `room`, and leaks `leak` a second.
    pub fn new(room: f64, leak: f64) -> Self {
        Self { level: 0.0, room, leak, last: Instant::now() }
    }

    /// Puts something in. False if it runs over.
    pub fn add(&mut self, amount: f64) -> bool {
        let passed: Duration = self.last.elapsed();
        self.last = Instant::now();
        self.level = (self.level - self.leak * passed.as_secs_f64()).max(0.0) + amount;
        self.level <= self.room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_steady_stream_at_the_allowed_rate_passes_for_ever_and_a_faster_one_does_not() {
        let mut allowed = Bucket::new(10.0, 2.0);
        let mut faster = Bucket::new(10.0, 2.0);
        let mut passed = 0;
        for _ in 0..10_000 {
            tokio::time::advance(Duration::from_millis(20)).await;
            assert!(allowed.add(0.04));
            passed += u32::from(faster.add(0.06));
        }
        // It gains 20 ms of audio in each 20 ms: 10 s of it in 500.
        assert!((490..=510).contains(&passed), "{passed}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_held_up_may_come_at_once() {
        let mut bucket = Bucket::new(10.0, 2.0);
        assert!(bucket.add(9.0));
        assert!(!bucket.add(9.0));
    }
}
