//! The machine: what happens goes in, what is to be done comes out.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::event::{Action, Event};
use super::options::TurnOptions;
use super::reply::Reply;
use super::stamps::Stamps;
use crate::llm::{Message, ToolSpec};
use crate::protocol::{ServerMessage, State, TurnReport};

/// The rules of a conversation, without anything that runs: time and events go in, actions come out, and the same events
/// give the same actions.
///
/// There is at most one answer in the making and at most one that is being flushed; audio is given out for the latest
/// only; what the language model is told is what was heard; and [`Machine::deadline`] is never `None` while something is
/// waited for, so no state lasts for ever.
#[derive(Debug)]
pub struct Machine {
    pub(super) options: TurnOptions,
    pub(super) tools: Arc<[ToolSpec]>,
    pub(super) sample_rate: u32,
    pub(super) now: Duration,
    pub(super) context: Context,
    /// Numbers of the last of each.
    pub(super) turn: u32,
    pub(super) epoch: u32,
    pub(super) generation: u32,
    /// What the user is saying.
    pub(super) hearing: Option<Hearing>,
    pub(super) reply: Option<Reply>,
    /// An answer that was interrupted, until the client says how much of it was heard, and until when that may take.
    pub(super) flushing: Option<(Reply, Duration)>,
    /// A turn that ended meanwhile.
    pub(super) next: Option<(String, Stamps)>,
    /// Whether the local detector hears speech, and when it last heard it end.
    pub(super) speech: bool,
    pub(super) speech_end: Option<Duration>,
    /// Whether the recogniser's connection is lost.
    pub(super) stt_lost: bool,
    /// What was answered although the recogniser had not ended the turn: its end is no news.
    pub(super) answered: Option<String>,
    state: State,
    pub(super) actions: Vec<Action>,
}

/// What the user is saying.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// The words so far.
    pub text: String,
    /// When there was last a sign of him.
    pub last: Duration,
    /// Answers begun early.
    pub eager: u32,
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timeout {
    Hearing,
    Thinking,
    Tool,
    Speaking,
    Playing,
    Hold,
    Flush,
}

impl Machine {
    /// A conversation that has not begun, with audio at `sample_rate`.
    pub fn new(options: TurnOptions, tools: Arc<[ToolSpec]>, sample_rate: u32) -> Self {
        Self {
            context: Context::new(&options.system, options.context_chars),
            options,
            tools,
            sample_rate,
            now: Duration::ZERO,
            turn: 0,
            epoch: 0,
            generation: 0,
            hearing: None,
            reply: None,
            flushing: None,
            next: None,
            speech: false,
            speech_end: None,
            stt_lost: false,
            answered: None,
            state: State::Listening,
            actions: Vec::new(),
        }
    }

    /// What the conversation is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the language model is told of the conversation so far.
    pub fn context(&self) -> &[Message] {
        self.context.messages()
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        self.timeouts().map(|(at, _)| at).min()
    }

    /// Something happened; `now` is the time since the beginning of the conversation. Returns what is to be done, in
    /// order.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        self.now = self.now.max(now);
        match event {
            Event::Start => self.greet(),
            Event::Stt(event) => self.recognised(event),
            Event::SpeechStarted => self.speech_started(),
            Event::SpeechStopped { at } => self.speech_stopped(at),
            Event::Llm { generation, event } => self.thought(generation, event),
            Event::Tts { epoch, utterance, event } => self.spoke(epoch, utterance, event),
            Event::Tool { call_id, result } => self.tool_returned(&call_id, result),
            Event::Sent { epoch, samples } => self.sent(epoch, samples),
            Event::Played { epoch, samples, underruns } => self.played(epoch, samples, underruns),
            Event::Flushed { epoch, samples } => self.flushed(epoch, samples),
            Event::Text(text) => self.typed(&text),
            Event::Interrupt => self.interrupt(),
            Event::Tick => {}
        }
        while let Some((_, timeout)) = self.timeouts().min().filter(|&(at, _)| at <= self.now) {
            self.give_up(timeout);
        }
        self.advance();
        self.tell_state();
        std::mem::take(&mut self.actions)
    }

    fn timeouts(&self) -> impl Iterator<Item = (Duration, Timeout)> {
        let patience = &self.options.patience;
        let hearing = self.hearing.as_ref().map(|hearing| {
            // A sound without words is not waited for as long as the rest of a sentence.
            let wait = match hearing.text.is_empty() {
                true => self.options.barge_in.hold,
                false => patience.hearing,
            };
            // Audio is kept while the recogniser is away: what is being said will still be recognised.
            let wait = if self.stt_lost { 4 * patience.hearing } else { wait };
            (hearing.last + wait, Timeout::Hearing)
        });
        let reply = self.reply.as_ref();
        let thinking = reply.filter(|reply| reply.generation.is_some());
        let playing = reply.filter(|reply| reply.hold.is_none());
        [
            hearing,
            thinking.map(|reply| (reply.thought + patience.thinking, Timeout::Thinking)),
            reply.and_then(|reply| Some((reply.tools_running()? + patience.tool, Timeout::Tool))),
            reply.and_then(|reply| {
                Some((reply.voice_waits()? + patience.speaking, Timeout::Speaking))
            }),
            playing.and_then(|reply| Some((reply.play_deadline?, Timeout::Playing))),
            reply.and_then(|reply| Some((reply.hold?, Timeout::Hold))),
            self.flushing.as_ref().map(|&(_, until)| (until, Timeout::Flush)),
        ]
        .into_iter()
        .flatten()
    }

    fn give_up(&mut self, timeout: Timeout) {
        match timeout {
            Timeout::Hearing => self.hearing_timed_out(),
            Timeout::Thinking => {
                self.stop_asking();
                let waited = self.options.patience.thinking;
                self.answer_failed(
                    &format!("the language model gave nothing for {waited:?}"),
                    false,
                );
            }
            Timeout::Tool => self.tools_timed_out(),
            Timeout::Speaking => {
                let waited = self.options.patience.speaking;
                self.speech_failed(&format!("the voice gave nothing for {waited:?}"));
            }
            Timeout::Playing => {
                // The client does not say what it plays: it is taken for what it should have been.
                if let Some(reply) = &mut self.reply {
                    reply.played = reply.samples();
                    reply.play_deadline = None;
                }
            }
            Timeout::Hold => self.resume(),
            Timeout::Flush => {
                if let Some((reply, _)) = self.flushing.take() {
                    self.close(reply, true);
                }
            }
        }
    }

    /// What follows from where things are: sentences that can be begun, an answer that is over.
    fn advance(&mut self) {
        let ahead =
            self.options.speak_ahead.as_millis() as u64 * u64::from(self.sample_rate) / 1000;
        let Some(reply) = &mut self.reply else { return };
        reply.advance(ahead, self.now, &mut self.actions);
        if reply.speculative || !reply.is_complete() {
            return;
        }
        let (epoch, samples) = (reply.epoch, reply.samples());
        if !std::mem::replace(&mut reply.end_told, true) && samples > 0 {
            self.actions.push(Action::PlayEnd { epoch, samples });
        }
        if reply.played >= samples
            && reply.tools_running().is_none()
            && let Some(reply) = self.reply.take()
        {
            self.close(reply, false);
        }
    }

    /// An answer is over: what was heard of it is remembered.
    pub(super) fn close(&mut self, reply: Reply, interrupted: bool) {
        let heard = reply.heard(reply.played);
        let parts = reply.parts(heard);
        let texts: Vec<&str> = parts.iter().map(|part| part.text.as_str()).collect();
        let assistant =
            texts.iter().filter(|text| !text.is_empty()).copied().collect::<Vec<_>>().join(" ");
        self.context.assistant(parts);
        self.actions.push(Action::Tell(ServerMessage::Assistant {
            turn: reply.turn,
            spoken: assistant.len(),
            text: assistant.clone(),
            done: true,
            interrupted,
        }));
        let report = TurnReport {
            turn: reply.turn,
            user: reply.user,
            assistant,
            interrupted,
            failed: reply.failed,
            stages: reply.stamps.stages(),
            underruns: reply.underruns,
            usage: reply.usage,
        };
        self.actions.push(Action::Tell(ServerMessage::Turn(report.clone())));
        self.actions.push(Action::Report(report));
        if self.flushing.is_none()
            && let Some((text, stamps)) = self.next.take()
        {
            self.begin_turn(&text, stamps);
        }
    }

    fn tell_state(&mut self) {
        let state = match &self.reply {
            Some(reply) if reply.hold.is_some() => State::Holding,
            Some(reply) if reply.is_audible() => State::Speaking,
            Some(reply) if !reply.speculative => State::Thinking,
            _ if self.hearing.is_some() || self.next.is_some() => State::Hearing,
            _ => State::Listening,
        };
        if std::mem::replace(&mut self.state, state) != state {
            self.actions.push(Action::Tell(ServerMessage::State { state }));
        }
    }

    pub(super) fn problem(&mut self, stage: &str, message: &str, permanent: bool) {
        let (stage, message) = (stage.into(), message.into());
        self.actions.push(Action::Tell(ServerMessage::Problem { stage, message, permanent }));
    }
}
