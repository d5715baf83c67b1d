//! A session that needs nobody: it answers what is typed, and what is loud and then quiet, with a tone for each word.

use std::time::Duration;

use mk_voice::protocol::{
    AudioFrame, ClientMessage, Providers, ServerMessage, Stages, State, TurnReport,
};
use mk_voice::session::Session;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

/// Samples a second of the tones.
pub const SAMPLE_RATE: u32 = 24_000;

/// What it answers to anything that is said.
pub const ANSWER: &str =
    "Zehn schöne Töne für dich, and then eleven more of them, until you stop me.";

const STEP: Duration = Duration::from_millis(20);
const STEP_SAMPLES: u64 = SAMPLE_RATE as u64 / 50;
const LEAD: u64 = SAMPLE_RATE as u64 / 5;
const WORD_SAMPLES: u64 = SAMPLE_RATE as u64 * 3 / 10;

/// Begins such a session.
pub fn start() -> Session {
    let (input, messages) = mpsc::channel(64);
    let (answers, output) = mpsc::channel(64);
    tokio::spawn(async move { Echo::new(answers).run(messages).await });
    Session { input, output }
}

struct Echo {
    output: mpsc::Sender<ServerMessage>,
    turn: u32,
    epoch: u32,
    user: String,
    loud: Duration,
    quiet: Duration,
    rate: u32,
    answer: Option<Answer>,
}

struct Answer {
    began: Instant,
    sent: u64,
    total: u64,
    played: u64,
    first_played: Option<f64>,
    underruns: u32,
}

impl Echo {
    fn new(output: mpsc::Sender<ServerMessage>) -> Self {
        Self {
            output,
            turn: 0,
            epoch: 0,
            user: String::new(),
            loud: Duration::ZERO,
            quiet: Duration::ZERO,
            rate: 16_000,
            answer: None,
        }
    }

    async fn run(mut self, mut messages: mpsc::Receiver<ClientMessage>) -> Option<()> {
        let mut clock = interval(STEP);
        loop {
            tokio::select! {
                message = messages.recv() => self.said(message?).await?,
                _ = clock.tick() => self.tick().await?,
            }
        }
    }

    async fn tell(&self, message: ServerMessage) -> Option<()> {
        self.output.send(message).await.ok()
    }

    async fn said(&mut self, message: ClientMessage) -> Option<()> {
        match message {
            ClientMessage::Hello { sample_rate } => {
                self.rate = sample_rate;
                let name = |part: &str| format!("a test's {part}");
                let providers = Providers {
                    stt: name("ear"),
                    llm: name("mind"),
                    tts: name("tones"),
                    notice: "everybody here is a double.".to_owned(),
                };
                let session = "echo".to_owned();
                self.tell(ServerMessage::Ready { session, sample_rate: SAMPLE_RATE, providers })
                    .await?;
                self.tell(ServerMessage::State { state: State::Listening }).await
            }
            ClientMessage::Audio(samples) => self.heard(&samples).await,
            ClientMessage::Text { text } => {
                self.stop(true).await?;
                self.answer(text).await
            }
            ClientMessage::Interrupt => self.stop(true).await,
            ClientMessage::Played { epoch, samples, underruns } if epoch == self.epoch => {
                let Some(answer) = &mut self.answer else { return Some(()) };
                answer.played = samples;
                answer.underruns = underruns;
                let since = answer.began.elapsed().as_secs_f64() * 1e3;
                answer.first_played.get_or_insert(since);
                match answer.played >= answer.total {
                    true => self.stop(false).await,
                    false => self.show(false, false).await,
                }
            }
            _ => Some(()),
        }
    }

    /// Loud for 100 ms is speech, which ends after 600 ms of quiet.
    async fn heard(&mut self, samples: &[i16]) -> Option<()> {
        let length = Duration::from_secs_f64(samples.len() as f64 / f64::from(self.rate));
        let energy: f64 = samples.iter().map(|&s| f64::from(s).powi(2)).sum();
        if energy.sqrt() > 800.0 * (samples.len() as f64).sqrt() {
            self.loud += length;
            self.quiet = Duration::ZERO;
        } else {
            self.quiet += length;
        }
        let speaks = self.loud >= Duration::from_millis(100);
        if speaks && self.quiet.is_zero() && self.user.is_empty() {
            self.stop(true).await?;
            self.user = "Something loud".to_owned();
            self.turn += 1;
            self.tell(ServerMessage::State { state: State::Hearing }).await?;
            let (turn, text) = (self.turn, self.user.clone());
            self.tell(ServerMessage::User { turn, text, done: false }).await?;
        }
        if self.quiet >= Duration::from_millis(600) {
            self.loud = Duration::ZERO;
            if !self.user.is_empty() {
                self.turn -= 1;
                let text = std::mem::take(&mut self.user) + ", and then quiet.";
                self.answer(text).await?;
            }
        }
        Some(())
    }

    async fn answer(&mut self, text: String) -> Option<()> {
        self.turn += 1;
        self.epoch += 1;
        self.user.clear();
        self.tell(ServerMessage::User { turn: self.turn, text, done: true }).await?;
        self.tell(ServerMessage::State { state: State::Thinking }).await?;
        self.answer = Some(Answer {
            began: Instant::now(),
            sent: 0,
            total: WORD_SAMPLES * ANSWER.split(' ').count() as u64,
            played: 0,
            first_played: None,
            underruns: 0,
        });
        self.tell(ServerMessage::State { state: State::Speaking }).await
    }

    /// Sends what is due: as much as has passed, and the lead.
    async fn tick(&mut self) -> Option<()> {
        let epoch = self.epoch;
        let Some(answer) = &mut self.answer else { return Some(()) };
        let passed = answer.began.elapsed().as_secs_f64() * f64::from(SAMPLE_RATE);
        let due = (passed as u64 + LEAD).min(answer.total);
        let (total, from) = (answer.total, answer.sent);
        answer.sent = due.next_multiple_of(STEP_SAMPLES).max(from);
        let (to, was_complete) = (answer.sent, from >= total);
        for first_sample in (from..to).step_by(STEP_SAMPLES as usize) {
            let samples = (first_sample..first_sample + STEP_SAMPLES).map(tone).collect();
            self.tell(ServerMessage::Audio(AudioFrame { epoch, first_sample, samples })).await?;
        }
        match to >= total && !was_complete {
            true => self.tell(ServerMessage::AudioEnd { epoch, samples: total }).await,
            false => Some(()),
        }
    }

    async fn show(&self, done: bool, interrupted: bool) -> Option<()> {
        let Some(answer) = &self.answer else { return Some(()) };
        let words = (answer.played / WORD_SAMPLES) as usize;
        let spoken = ANSWER.match_indices(' ').nth(words).map_or(ANSWER.len(), |(at, _)| at);
        let text = if done { ANSWER[..spoken].to_owned() } else { ANSWER.to_owned() };
        self.tell(ServerMessage::Assistant { turn: self.turn, text, spoken, done, interrupted })
            .await
    }

    async fn stop(&mut self, interrupted: bool) -> Option<()> {
        if self.answer.is_none() {
            return Some(());
        }
        if interrupted {
            self.tell(ServerMessage::Flush { epoch: self.epoch }).await?;
        }
        self.show(true, interrupted).await?;
        let answer = self.answer.take()?;
        let stages = Stages {
            transcript: Some(180.0),
            first_token: Some(420.0),
            first_clause: Some(470.0),
            first_audio: Some(560.0),
            first_sent: Some(562.0),
            first_played: answer.first_played.map(|played| 562.0 + played),
        };
        self.tell(ServerMessage::Turn(TurnReport {
            turn: self.turn,
            user: String::new(),
            assistant: ANSWER.to_owned(),
            interrupted,
            failed: false,
            stages,
            underruns: answer.underruns,
            usage: Default::default(),
        }))
        .await?;
        self.tell(ServerMessage::State { state: State::Listening }).await
    }
}

/// A sample of a tone that is another one in each word.
fn tone(sample: u64) -> i16 {
    let word = sample / WORD_SAMPLES;
    let within = (sample % WORD_SAMPLES) as f64 / WORD_SAMPLES as f64;
    let hertz = 220.0 * 2f64.powf((word * 5 % 12) as f64 / 12.0);
    let phase = std::f64::consts::TAU * hertz * sample as f64 / f64::from(SAMPLE_RATE);
    (phase.sin() * (std::f64::consts::PI * within).sin() * 9000.0) as i16
}
