//! How long a turn that a lost connection had found is waited for.

use std::time::Duration;

use super::clock::samples;

/// Audio behind what the lost connection had heard, by the end of which the turn should have been found.
const PATIENCE: Duration = Duration::from_secs(3);

/// Of a turn that a connection was lost in, and of the connections since.
#[derive(Debug)]
pub(super) struct Patience {
    /// Position in the input that the lost connection had heard up to.
    until: u64,
    /// Samples of the present connection before that.
    first: u64,
    /// Samples behind it that were sent to connections before the present one, and to that.
    before: u64,
    now: u64,
}

impl Patience {
    /// A connection that had `heard` so much is lost, and the next one hears the input from `position` on. `last` is the
    /// patience there was with the lost one, if it was not the first.
    pub(super) fn new(last: Option<Self>, heard: u64, position: u64) -> Self {
        let (until, before) = last.map_or((0, 0), |last| (last.until, last.before + last.now));
        let until = until.max(heard).max(position);
        Self { until, first: until - position, before, now: 0 }
    }

    /// Position in the input that the lost connection had heard up to.
    pub(super) fn until(&self) -> u64 {
        self.until
    }

    /// So many samples have been sent on the present connection.
    pub(super) fn sent(&mut self, total: u64) {
        self.now = total.saturating_sub(self.first);
    }

    /// Whether there is none left.
    pub(super) fn is_over(&self) -> bool {
        self.before + self.now >= samples(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_it() {
        let mut patience = Patience::new(None, 48_000, 32_000);
        patience.sent(16_000 + 32_000);
        assert!(patience.until() == 48_000 && !patience.is_over());
        let mut patience = Patience::new(Some(patience), 40_000, 32_000);
        patience.sent(16_000 + 15_999);
        assert!(patience.until() == 48_000 && !patience.is_over());
        patience.sent(16_000 + 16_000);
        assert!(patience.is_over());
    }
}
