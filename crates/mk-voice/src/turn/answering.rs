//! The assistant's side: asking, speaking, playing.

use std::time::Duration;

use super::event::Action;
use super::machine::Machine;
use super::reply::{Called, Reply};
use super::stamps::Stamps;
use crate::llm::{FinishReason, LlmEvent, LlmRequest, Message};
use crate::protocol::ServerMessage;
use crate::tts::TtsEvent;

impl Machine {
    pub(super) fn greet(&mut self) {
        if self.options.greeting.is_empty() || self.reply.is_some() || self.epoch > 0 {
            return;
        }
        self.epoch += 1;
        let stamps = Stamps { speech_end: self.now, ..Stamps::default() };
        let mut reply = Reply::new(self.epoch, 0, "", stamps, &self.options);
        let greeting = self.options.greeting.clone();
        self.say_all(&mut reply, &greeting);
        self.reply = Some(reply);
    }

    /// The user said `text`: it is answered.
    pub(super) fn begin_turn(&mut self, text: &str, stamps: Stamps) {
        self.turn += 1;
        self.context.user(text);
        let turn = self.turn;
        self.actions.push(Action::Tell(ServerMessage::User {
            turn,
            text: text.into(),
            done: true,
        }));
        self.epoch += 1;
        let mut reply = Reply::new(self.epoch, turn, text, stamps, &self.options);
        self.ask(&mut reply, self.context.messages().to_vec());
        self.reply = Some(reply);
    }

    pub(super) fn ask(&mut self, reply: &mut Reply, messages: Vec<Message>) {
        self.generation += 1;
        reply.generation = Some(self.generation);
        reply.requests += 1;
        reply.thought = self.now;
        let request = LlmRequest { messages, tools: self.tools.clone() };
        self.actions.push(Action::Ask { generation: self.generation, request });
    }

    pub(super) fn stop_asking(&mut self) {
        if let Some(generation) = self.reply.as_mut().and_then(|reply| reply.generation.take()) {
            self.actions.push(Action::StopAsking { generation });
        }
    }

    /// Nothing more is made of an answer.
    pub(super) fn stop(&mut self, reply: &Reply) {
        if let Some(generation) = reply.generation {
            self.actions.push(Action::StopAsking { generation });
        }
        if reply.is_spoken() {
            self.actions.push(Action::StopSpeaking { epoch: reply.epoch });
        }
    }

    /// An answer that nobody heard, to something that was not the user's last word.
    pub(super) fn drop_reply(&mut self, reply: Reply) {
        self.stop(&reply);
    }

    pub(super) fn thought(&mut self, generation: u32, event: LlmEvent) {
        let live = |reply: &mut Reply| reply.generation == Some(generation);
        let Some(mut reply) = self.reply.take_if(live) else { return };
        reply.thought = self.now;
        match event {
            LlmEvent::Retried { .. } => {}
            LlmEvent::Text(text) => {
                reply.stamps.first_token.get_or_insert(self.now);
                let before = self.actions.len();
                reply.write(&text, self.now, &mut self.actions);
                if self.actions.len() > before {
                    self.tell_reply(&reply);
                }
                if reply.text.len() > self.options.reply_bytes {
                    self.actions.push(Action::StopAsking { generation });
                    self.finish_text(&mut reply);
                }
            }
            LlmEvent::ToolCall(call) => {
                let (request, at) = (reply.requests, reply.text.len());
                reply.calls.push(Called { call, request, at, started: None, result: None });
            }
            LlmEvent::Finished { reason, usage } => {
                if let Some(usage) = usage {
                    reply.usage.prompt_tokens += usage.prompt_tokens;
                    reply.usage.completion_tokens += usage.completion_tokens;
                }
                self.thought_all(&mut reply, reason);
            }
            LlmEvent::Failed(error) => {
                reply.generation = None;
                self.reply = Some(reply);
                self.answer_failed(&error.to_string(), error.permanent);
                return;
            }
        }
        self.reply = Some(reply);
    }

    fn thought_all(&mut self, reply: &mut Reply, reason: FinishReason) {
        reply.generation = None;
        if reply.calls.iter().any(|called| called.started.is_none()) {
            // All text of a request goes before its calls, whatever their order was.
            let at = reply.text.len();
            let fresh = reply.calls.iter_mut().filter(|called| called.started.is_none());
            fresh.for_each(|called| called.at = at);
            reply.end_passage(&self.options, self.now, &mut self.actions);
            self.run_tools(reply);
            return;
        }
        if reason == FinishReason::ContentFilter {
            self.problem("thinking", "the service refused to say more", false);
        }
        if reply.text.trim().is_empty() && reply.calls.is_empty() {
            reply.failed = true;
            self.problem("thinking", "the language model answered nothing", false);
            let apology = self.options.apology.clone();
            self.say_all(reply, &apology);
            return;
        }
        self.finish_text(reply);
    }

    /// Runs the tools that the answer called, once it is certain that it will be given.
    pub(super) fn run_tools(&mut self, reply: &mut Reply) {
        if reply.speculative || reply.generation.is_some() {
            return;
        }
        for called in reply.calls.iter_mut().filter(|called| called.started.is_none()) {
            called.started = Some(self.now);
            let name = called.call.name.clone();
            self.actions.push(Action::Tell(ServerMessage::Tool { name, done: false }));
            self.actions.push(Action::RunTool(called.call.clone()));
        }
    }

    pub(super) fn tool_returned(&mut self, call_id: &str, result: String) {
        let waits = |called: &&mut Called| called.call.id == call_id && called.result.is_none();
        for reply in self.reply.iter_mut().chain(self.flushing.iter_mut().map(|(reply, _)| reply)) {
            if let Some(called) = reply.calls.iter_mut().find(waits) {
                called.result = Some(result);
                let name = called.call.name.clone();
                self.actions.push(Action::Tell(ServerMessage::Tool { name, done: true }));
                self.tools_done();
                return;
            }
        }
        self.context.tool_result(call_id, result);
    }

    pub(super) fn tools_timed_out(&mut self) {
        let Some(reply) = &mut self.reply else { return };
        for called in &mut reply.calls {
            if called.started.is_some() {
                called.result.get_or_insert_with(|| r#"{"error":"it took too long"}"#.into());
            }
        }
        self.tools_done();
    }

    /// Asks again where all tools have returned.
    fn tools_done(&mut self) {
        let ready = |reply: &mut Reply| {
            reply.generation.is_none()
                && !reply.is_complete()
                && reply.calls.last().is_some_and(|called| called.request == reply.requests)
                && reply.calls.iter().all(|called| called.result.is_some())
        };
        let Some(mut reply) = self.reply.take_if(ready) else { return };
        if reply.requests < self.options.requests_per_turn {
            let mut context = self.context.clone();
            context.assistant(reply.parts(reply.text.len()));
            self.ask(&mut reply, context.messages().to_vec());
            self.reply = Some(reply);
        } else {
            self.reply = Some(reply);
            self.answer_failed("the language model called tools again and again", false);
        }
    }

    /// The answer cannot be completed: what there is of it is spoken, or an apology.
    pub(super) fn answer_failed(&mut self, reason: &str, permanent: bool) {
        self.problem("thinking", reason, permanent);
        let Some(mut reply) = self.reply.take() else { return };
        if reply.speculative {
            // It can still be asked in time.
            self.drop_reply(reply);
            return;
        }
        reply.failed = true;
        reply.generation = None;
        reply.calls.retain(|called| called.started.is_some());
        if reply.text.trim().is_empty() {
            let apology = self.options.apology.clone();
            self.say_all(&mut reply, &apology);
        } else {
            self.finish_text(&mut reply);
        }
        self.reply = Some(reply);
    }

    fn say_all(&mut self, reply: &mut Reply, text: &str) {
        reply.write(text, self.now, &mut self.actions);
        self.finish_text(reply);
    }

    fn finish_text(&mut self, reply: &mut Reply) {
        reply.end_passage(&self.options, self.now, &mut self.actions);
        reply.end_text();
        self.tell_reply(reply);
    }

    pub(super) fn spoke(&mut self, epoch: u32, utterance: usize, event: TtsEvent) {
        let Some(mut reply) = self.reply.take_if(|reply| reply.epoch == epoch) else { return };
        match event {
            TtsEvent::Audio { samples, mark } => {
                reply.audio(utterance, samples, mark, self.now, &mut self.actions);
                self.expect_played(&mut reply);
            }
            TtsEvent::Ended { marks } => reply.utterance_ended(utterance, marks),
            TtsEvent::Failed(error) => {
                self.reply = Some(reply);
                self.speech_failed(&error.to_string());
                return;
            }
        }
        self.reply = Some(reply);
    }

    pub(super) fn speech_failed(&mut self, reason: &str) {
        self.problem("speaking", reason, false);
        self.stop_asking();
        let Some(mut reply) = self.reply.take() else { return };
        if reply.speculative {
            self.drop_reply(reply);
            return;
        }
        self.actions.push(Action::StopSpeaking { epoch: reply.epoch });
        reply.failed = true;
        reply.calls.retain(|called| called.started.is_some());
        reply.end_speech();
        self.reply = Some(reply);
    }

    pub(super) fn sent(&mut self, epoch: u32, samples: u64) {
        if let Some(reply) = self.reply.as_mut().filter(|reply| reply.epoch == epoch && samples > 0)
        {
            reply.stamps.first_sent.get_or_insert(self.now);
        }
    }

    pub(super) fn played(&mut self, epoch: u32, samples: u64, underruns: u32) {
        let now = self.now;
        let flushing = self.flushing.as_mut().map(|(reply, _)| reply);
        let replies = self.reply.iter_mut().chain(flushing);
        for reply in replies.filter(|reply| reply.epoch == epoch && !reply.speculative) {
            let samples = samples.min(reply.samples());
            if samples > 0 {
                reply.stamps.first_played.get_or_insert(now);
            }
            reply.underruns = reply.underruns.max(underruns);
            reply.played = reply.played.max(samples);
        }
        if let Some(mut reply) = self.reply.take() {
            if reply.epoch == epoch {
                self.expect_played(&mut reply);
                self.tell_reply(&reply);
            }
            self.reply = Some(reply);
        }
    }

    /// Sets when the client must have played what there is.
    pub(super) fn expect_played(&mut self, reply: &mut Reply) {
        let rest = reply.samples() - reply.played;
        reply.play_deadline = (rest > 0 && reply.is_audible()).then(|| {
            let rest = Duration::from_secs_f64(rest as f64 / f64::from(self.sample_rate));
            self.now + rest + self.options.patience.playing
        });
    }

    /// Tells the client what is written, and what was heard of it.
    pub(super) fn tell_reply(&mut self, reply: &Reply) {
        if reply.speculative {
            return;
        }
        self.actions.push(Action::Tell(ServerMessage::Assistant {
            turn: reply.turn,
            text: reply.text.clone(),
            spoken: reply.heard(reply.played),
            done: false,
            interrupted: false,
        }));
    }
}
