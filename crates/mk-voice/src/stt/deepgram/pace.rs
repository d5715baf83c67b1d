//! How fast audio may be sent.

use std::time::Duration;

use tokio::time::Instant;

use super::clock::duration;

/// Audio is sent this much faster than it is spoken at most: what Deepgram allows.
const FASTEST: f64 = 1.25;

/// Audio that may be sent at once when it comes unevenly, as over a network.
const BURST: Duration = Duration::from_millis(240);

/// Keeps audio to [`FASTEST`], in the long run exactly, but for a burst.
#[derive(Debug)]
pub(super) struct Pace {
    /// When all that was sent would have been sent at [`FASTEST`].
    even: Instant,
}

impl Pace {
    /// For a connection that begins `now`; no burst at first, since there may be much to catch up with.
    pub(super) fn new(now: Instant) -> Self {
        Self { even: now + BURST }
    }

    /// When the next audio may be sent.
    pub(super) fn ready(&self) -> Instant {
        self.even.checked_sub(BURST).unwrap_or(self.even)
    }

    /// `samples` are sent `now`.
    pub(super) fn sent(&mut self, now: Instant, samples: u64) {
        self.even = self.even.max(now) + duration(samples).div_f64(FASTEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_take_eight() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut now = start;
        for _ in 0..125 {
            now = now.max(pace.ready());
            pace.sent(now, 1280);
        }
        let took = now - start;
        assert!(
            took > Duration::from_millis(7900) && took < Duration::from_millis(8000),
            "{took:?}"
        );
    }

    #[test]
    fn a_small_burst_is_sent_at_once() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        now += Duration::from_secs(10);
        let mut at_once = 0;
        while pace.ready() <= now {
            pace.sent(now, 1280);
            at_once += 1;
        }
        assert_eq!(at_once, 4);
    }
}
