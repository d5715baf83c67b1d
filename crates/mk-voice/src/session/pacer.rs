//! When audio goes to the client: as fast as it is played, a little ahead.

use std::collections::VecDeque;
use std::time::Duration;

use crate::protocol::AudioFrame;

/// What a message carries at most.
const FRAME: Duration = Duration::from_millis(40);

/// Hands out audio so that the client never has more than `lead` that it has not played: more would have to be thrown
/// away when the user interrupts, less would not survive a hiccup of the network.
///
/// It keeps count of when the client will have played what was sent, so that the rate does not drift, however late it
/// is asked. Where audio comes late, the count begins anew.
#[derive(Debug)]
pub(super) struct Pacer {
    sample_rate: u32,
    lead: Duration,
    queue: VecDeque<AudioFrame>,
    /// When the client will have played what it was sent.
    played_out: Duration,
    paused: Option<Duration>,
    end: Option<(u32, u64)>,
}

/// What is due.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Due {
    /// A frame, and when the client will play it.
    Frame(AudioFrame, Duration),
    /// The epoch has no more samples than these.
    End(u32, u64),
}

impl Pacer {
    pub fn new(sample_rate: u32, lead: Duration) -> Self {
        let queue = VecDeque::new();
        Self { sample_rate, lead, queue, played_out: Duration::ZERO, paused: None, end: None }
    }

    /// Takes audio of the latest epoch; what is left of an earlier one is thrown away.
    pub fn push(&mut self, mut frame: AudioFrame) {
        if self.queue.back().is_some_and(|last| last.epoch != frame.epoch) {
            self.flush();
        }
        let most = (FRAME.as_secs_f64() * f64::from(self.sample_rate)) as usize;
        while frame.samples.len() > most {
            let rest = frame.samples.split_off(most);
            let first_sample = frame.first_sample + most as u64;
            let next = AudioFrame { epoch: frame.epoch, first_sample, samples: rest };
            self.queue.push_back(std::mem::replace(&mut frame, next));
        }
        self.queue.push_back(frame);
    }

    /// The epoch is complete with what was pushed.
    pub fn end(&mut self, epoch: u32, samples: u64) {
        self.end = Some((epoch, samples));
    }

    /// Stops handing out.
    pub fn pause(&mut self, now: Duration) {
        self.paused.get_or_insert(now);
    }

    /// Goes on: the client has waited too.
    pub fn resume(&mut self, now: Duration) {
        if let Some(since) = self.paused.take()
            && self.played_out > since
        {
            self.played_out += now.saturating_sub(since);
        }
    }

    /// Throws everything away, as the client does.
    pub fn flush(&mut self) {
        self.queue.clear();
        self.end = None;
        self.paused = None;
        self.played_out = Duration::ZERO;
    }

    /// When [`Pacer::next`] will have something.
    pub fn deadline(&self) -> Option<Duration> {
        if self.paused.is_some() {
            return None;
        }
        match (self.queue.front(), self.end) {
            (Some(_), _) => Some(self.played_out.saturating_sub(self.lead)),
            (None, Some(_)) => Some(Duration::ZERO),
            (None, None) => None,
        }
    }

    /// The next thing that is due.
    pub fn next(&mut self, now: Duration) -> Option<Due> {
        if self.deadline()? > now {
            return None;
        }
        let Some(frame) = self.queue.pop_front() else {
            return self.end.take().map(|(epoch, samples)| Due::End(epoch, samples));
        };
        let at = self.played_out.max(now);
        let seconds = frame.samples.len() as f64 / f64::from(self.sample_rate);
        self.played_out = at + Duration::from_secs_f64(seconds);
        Some(Due::Frame(frame, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 24_000;

    fn pacer() -> Pacer {
        Pacer::new(RATE, Duration::from_millis(200))
    }

    fn frame(epoch: u32, first_sample: u64, samples: usize) -> AudioFrame {
        AudioFrame { epoch, first_sample, samples: vec![1; samples] }
    }

    /// Samples handed out by `now`.
    fn taken(pacer: &mut Pacer, now: Duration) -> u64 {
        let frames = std::iter::from_fn(|| pacer.next(now));
        let samples = frames.map(|due| match due {
            Due::Frame(frame, _) => frame.samples.len() as u64,
            Due::End(..) => 0,
        });
        samples.sum()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn never_more_than_the_lead_and_a_frame_is_ahead_and_the_rate_does_not_drift() {
        let mut pacer = pacer();
        pacer.push(frame(1, 0, 60 * RATE as usize));
        let mut sent = 0;
        // Asked at odd times.
        for step in 0..4000 {
            let now = ms(7 + step * 13);
            sent += taken(&mut pacer, now);
            let ahead = sent as f64 / f64::from(RATE) - (now - ms(7)).as_secs_f64();
            assert!((0.2..=0.2401).contains(&ahead), "{ahead} s ahead at {now:?}");
        }
    }

    #[test]
    fn late_audio_begins_a_new_count() {
        let mut pacer = pacer();
        pacer.push(frame(1, 0, 960));
        assert_eq!(taken(&mut pacer, ms(0)), 960);
        pacer.push(frame(1, 960, 24_000));
        assert_eq!(pacer.next(ms(5000)), Some(Due::Frame(frame(1, 960, 960), ms(5000))));
        assert_eq!(taken(&mut pacer, ms(5000)), 5 * 960);
    }

    #[test]
    fn a_pause_stops_it_and_what_is_left_comes_later() {
        let mut pacer = pacer();
        pacer.push(frame(1, 0, 24_000));
        pacer.end(1, 24_000);
        assert_eq!(taken(&mut pacer, ms(0)), 6 * 960);
        pacer.pause(ms(40));
        assert_eq!((pacer.deadline(), pacer.next(ms(900))), (None, None));
        pacer.resume(ms(1040));
        assert_eq!(taken(&mut pacer, ms(1039)), 0);
        assert_eq!(taken(&mut pacer, ms(1040)), 960);
        let rest: u64 = (27..100).map(|step| taken(&mut pacer, ms(step * 40))).sum();
        assert_eq!((rest, pacer.deadline()), (24_000 - 7 * 960, None));
    }

    #[test]
    fn nothing_of_an_epoch_is_left_after_a_flush_or_when_the_next_begins() {
        let mut pacer = pacer();
        pacer.push(frame(1, 0, 24_000));
        pacer.end(1, 24_000);
        pacer.flush();
        assert_eq!(pacer.next(ms(1000)), None);
        pacer.push(frame(2, 0, 24_000));
        pacer.push(frame(3, 0, 10));
        assert_eq!(pacer.next(ms(1000)), Some(Due::Frame(frame(3, 0, 10), ms(1000))));
        assert_eq!(pacer.next(ms(1000)), None);
    }

    #[test]
    fn the_end_comes_after_the_last_frame() {
        let mut pacer = pacer();
        pacer.push(frame(4, 0, 100));
        pacer.end(4, 100);
        assert!(matches!(pacer.next(ms(0)), Some(Due::Frame(..))));
        assert_eq!(pacer.next(ms(0)), Some(Due::End(4, 100)));
        assert_eq!(pacer.next(ms(0)), None);
    }
}
