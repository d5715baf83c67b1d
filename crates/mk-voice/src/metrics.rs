//! What a program that holds conversations has done: counters for Prometheus, and exact percentiles of the last turns.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::{Atomic, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::llm::Usage;
use crate::protocol::{ServerMessage, Stages, TurnReport};

/// Turns that percentiles are taken over: the last ones.
const KEPT: usize = 1000;

/// Upper ends of the histogram's buckets in seconds: narrow where turns are good, up to what nobody waits for.
const BUCKETS: [f64; 16] =
    [0.01, 0.02, 0.04, 0.08, 0.12, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.5, 2.5, 5.0, 10.0];

type Label = [(&'static str, &'static str); 1];

/// Counts what conversations do; shared by all of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sessions_active: Gauge,
    sessions: Counter,
    refused: Family<Label, Counter>,
    turns: Family<Label, Counter>,
    stages: Family<Label, Histogram>,
    underruns: Counter,
    problems: Family<Label, Counter>,
    audio_in: Counter<f64, std::sync::atomic::AtomicU64>,
    audio_out: Counter<f64, std::sync::atomic::AtomicU64>,
    tokens: Family<Label, Counter>,
    recent: Mutex<[VecDeque<f64>; 6]>,
}

/// All that [`Metrics`] has counted, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Conversations going on.
    pub sessions_active: i64,
    /// Conversations that were begun.
    pub sessions: u64,
    /// Turns that came to their end.
    pub completed: u64,
    /// Turns that the user interrupted.
    pub interrupted: u64,
    /// Turns that could not be completed.
    pub failed: u64,
    /// Times that a player had nothing to play where it should have had.
    pub underruns: u64,
    /// Of the last turns.
    pub stages: Vec<Percentiles>,
}

/// How long it took, from the end of the user's speech, until a stage was reached: of the last turns that reached it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Percentiles {
    /// Name of the stage, as in [`Stages::named`].
    pub stage: &'static str,
    /// How many turns: at most the last 1000.
    pub count: usize,
    /// Milliseconds within which half of them reached it.
    pub p50: f64,
    /// Milliseconds within which 95 of 100 reached it.
    pub p95: f64,
    /// Milliseconds within which 99 of 100 reached it.
    pub p99: f64,
}

impl Metrics {
    /// Nothing is counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("mk_voice");
        let stages = Family::<Label, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let metrics = Self {
            sessions_active: Gauge::default(),
            sessions: Counter::default(),
            refused: Family::default(),
            turns: Family::default(),
            stages,
            underruns: Counter::default(),
            problems: Family::default(),
            audio_in: Counter::default(),
            audio_out: Counter::default(),
            tokens: Family::default(),
            recent: Mutex::default(),
            registry: Registry::default(),
        };
        let mut add = |name: &str, help: &str, metric: Box<dyn Register>| {
            metric.register(&mut registry, name, help);
        };
        add("sessions_active", "Conversations going on", Box::new(metrics.sessions_active.clone()));
        add("sessions", "Conversations that were begun", Box::new(metrics.sessions.clone()));
        add("sessions_refused", "Conversations refused, by why", Box::new(metrics.refused.clone()));
        add("turns", "Turns, by how they ended", Box::new(metrics.turns.clone()));
        add(
            "stage_seconds",
            "From the end of the user's speech until a stage of the answer was reached",
            Box::new(metrics.stages.clone()),
        );
        add("underruns", "Times a player had nothing to play", Box::new(metrics.underruns.clone()));
        add("problems", "Problems, by where", Box::new(metrics.problems.clone()));
        add("audio_in_seconds", "Audio heard", Box::new(metrics.audio_in.clone()));
        add("audio_out_seconds", "Audio sent", Box::new(metrics.audio_out.clone()));
        add("llm_tokens", "Tokens of the language model", Box::new(metrics.tokens.clone()));
        Self { registry, ..metrics }
    }

    /// A conversation begins. It ends when what is returned is dropped.
    pub fn session(self: &Arc<Self>) -> ActiveSession {
        self.sessions.inc();
        self.sessions_active.inc();
        ActiveSession(self.clone())
    }

    /// A conversation was refused. `reason` is a word: "full", "origin", "host".
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// A turn is over. The greeting (turn 0) is a turn, but nobody waits for it: its stages are not counted.
    pub fn turn(&self, report: &TurnReport) {
        let outcome = match (report.failed, report.interrupted) {
            (true, _) => "failed",
            (false, true) => "interrupted",
            (false, false) => "completed",
        };
        self.turns.get_or_create(&[("outcome", outcome)]).inc();
        self.underruns.inc_by(report.underruns.into());
        let Usage { prompt_tokens, completion_tokens } = report.usage;
        self.tokens.get_or_create(&[("kind", "prompt")]).inc_by(prompt_tokens);
        self.tokens.get_or_create(&[("kind", "completion")]).inc_by(completion_tokens);
        if report.turn == 0 {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        for ((stage, milliseconds), recent) in report.stages.named().iter().zip(recent.iter_mut()) {
            let Some(milliseconds) = milliseconds.filter(|milliseconds| milliseconds.is_finite())
            else {
                continue;
            };
            self.stages.get_or_create(&[("stage", *stage)]).observe(milliseconds / 1000.0);
            if recent.len() == KEPT {
                recent.pop_front();
            }
            recent.push_back(milliseconds);
        }
    }

    /// Something went wrong; `stage` as in [`ServerMessage::Problem`].
    pub fn problem(&self, stage: &str) {
        let known = ["listening", "thinking", "speaking", "session"];
        let stage = known.into_iter().find(|&known| known == stage).unwrap_or("other");
        self.problems.get_or_create(&[("stage", stage)]).inc();
    }

    /// Audio came from a client.
    pub fn audio_in(&self, samples: usize, sample_rate: u32) {
        count_seconds(&self.audio_in, samples, sample_rate);
    }

    /// Audio was sent to a client.
    pub fn audio_out(&self, samples: usize, sample_rate: u32) {
        count_seconds(&self.audio_out, samples, sample_rate);
    }

    /// Counts what a client is told: turns, problems, audio at `sample_rate`. For whoever carries a session's output.
    pub fn told(&self, message: &ServerMessage, sample_rate: u32) {
        match message {
            ServerMessage::Turn(report) => self.turn(report),
            ServerMessage::Problem { stage, .. } => self.problem(stage),
            ServerMessage::Audio(frame) => self.audio_out(frame.samples.len(), sample_rate),
            _ => {}
        }
    }

    /// The stages of the last turns.
    pub fn percentiles(&self) -> Vec<Percentiles> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let names = Stages::default().named().map(|(name, _)| name);
        let percentiles = |(stage, values): (&'static str, VecDeque<f64>)| {
            let mut sorted = Vec::from(values);
            sorted.sort_by(f64::total_cmp);
            let at = |percent| nearest_rank(&sorted, percent);
            let (p50, p95, p99) = (at(50)?, at(95)?, at(99)?);
            Some(Percentiles { stage, count: sorted.len(), p50, p95, p99 })
        };
        names.into_iter().zip(recent).filter_map(percentiles).collect()
    }

    /// Everything that people look at.
    pub fn stats(&self) -> Stats {
        let turns = |outcome| self.turns.get_or_create(&[("outcome", outcome)]).get();
        Stats {
            sessions_active: self.sessions_active.get(),
            sessions: self.sessions.get(),
            completed: turns("completed"),
            interrupted: turns("interrupted"),
            failed: turns("failed"),
            underruns: self.underruns.get(),
            stages: self.percentiles(),
        }
    }

    /// Everything, in Prometheus' text format (version 0.0.4).
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail; what is there is what there is.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A conversation that is going on, for as long as this is kept.
#[derive(Debug)]
pub struct ActiveSession(Arc<Metrics>);

impl Drop for ActiveSession {
    fn drop(&mut self) {
        self.0.sessions_active.dec();
    }
}

/// What a registry takes, whatever its type.
trait Register {
    fn register(self: Box<Self>, registry: &mut Registry, name: &str, help: &str);
}

impl<M: prometheus_client::registry::Metric> Register for M {
    fn register(self: Box<Self>, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, *self);
    }
}

fn count_seconds<A: Atomic<f64>>(counter: &Counter<f64, A>, samples: usize, sample_rate: u32) {
    if sample_rate > 0 {
        counter.inc_by(samples as f64 / f64::from(sample_rate));
    }
}

/// The smallest value that `percent` of 100 values do not exceed.
fn nearest_rank(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(turn: u32, transcript: f64) -> TurnReport {
        TurnReport {
            turn,
            user: String::new(),
            assistant: String::new(),
            interrupted: false,
            failed: false,
            stages: Stages { transcript: Some(transcript), ..Stages::default() },
            underruns: 1,
            usage: Usage { prompt_tokens: 20, completion_tokens: 7 },
        }
    }

    #[test]
    fn percentiles_are_of_the_last_thousand_turns() {
        let metrics = Metrics::new();
        assert_eq!(metrics.percentiles(), []);
        for turn in 1..=1100 {
            metrics.turn(&report(turn, f64::from(turn)));
        }
        let expected =
            Percentiles { stage: "transcript", count: 1000, p50: 600.0, p95: 1050.0, p99: 1090.0 };
        assert_eq!(metrics.percentiles(), [expected]);
    }

    #[test]
    fn a_single_turn_is_every_percentile() {
        let metrics = Metrics::new();
        metrics.turn(&report(1, 250.0));
        let [only] = &metrics.percentiles()[..] else { panic!("one stage was reached") };
        assert_eq!((only.p50, only.p95, only.p99), (250.0, 250.0, 250.0));
    }

    #[test]
    fn the_greeting_is_a_turn_nobody_waits_for() {
        let metrics = Metrics::new();
        metrics.turn(&report(0, 5.0));
        assert_eq!(metrics.stats().completed, 1);
        assert_eq!(metrics.percentiles(), []);
    }

    #[test]
    fn what_is_counted_is_rendered() {
        let metrics = Arc::new(Metrics::new());
        let session = metrics.session();
        drop(metrics.session());
        metrics.refused("full");
        metrics.turn(&report(1, 250.0));
        metrics.turn(&TurnReport { interrupted: true, ..report(2, 300.0) });
        metrics.turn(&TurnReport { interrupted: true, failed: true, ..report(3, f64::NAN) });
        metrics.problem("thinking");
        metrics.problem("whatever a session makes up");
        metrics.audio_in(8_000, 16_000);
        metrics.audio_out(36_000, 24_000);
        metrics.audio_out(1, 0);
        let text = metrics.render();
        for line in [
            "mk_voice_sessions_active 1",
            "mk_voice_sessions_total 2",
            "mk_voice_sessions_refused_total{reason=\"full\"} 1",
            "mk_voice_turns_total{outcome=\"completed\"} 1",
            "mk_voice_turns_total{outcome=\"interrupted\"} 1",
            "mk_voice_turns_total{outcome=\"failed\"} 1",
            "mk_voice_stage_seconds_count{stage=\"transcript\"} 2",
            "mk_voice_stage_seconds_bucket{stage=\"transcript\",le=\"0.3\"} 2",
            "mk_voice_underruns_total 3",
            "mk_voice_problems_total{stage=\"thinking\"} 1",
            "mk_voice_problems_total{stage=\"other\"} 1",
            "mk_voice_audio_in_seconds_total 0.5",
            "mk_voice_audio_out_seconds_total 1.5",
            "mk_voice_llm_tokens_total{kind=\"prompt\"} 60",
            "mk_voice_llm_tokens_total{kind=\"completion\"} 21",
        ] {
            assert!(text.lines().any(|rendered| rendered == line), "no {line:?} in\n{text}");
        }
        drop(session);
        assert_eq!(metrics.stats().sessions_active, 0);
    }
}
