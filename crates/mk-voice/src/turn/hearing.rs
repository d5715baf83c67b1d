//! The user's side: what he says, and what it does to the answer that is being given.

use std::time::Duration;

use super::event::Action;
use super::machine::Machine;
use super::reply::Reply;
use super::stamps::Stamps;
use crate::protocol::ServerMessage;
use crate::stt::SttEvent;

impl Machine {
    pub(super) fn speech_started(&mut self) {
        self.speech = true;
        self.user_sounds();
    }

    pub(super) fn speech_stopped(&mut self, at: Duration) {
        self.speech = false;
        self.speech_end = Some(at.min(self.now));
        if let Some(hearing) = &mut self.hearing {
            hearing.last = self.now;
        }
    }

    pub(super) fn recognised(&mut self, event: SttEvent) {
        match event {
            SttEvent::Connected => self.stt_lost = false,
            SttEvent::TurnStarted => {
                self.answered = None;
                self.user_sounds();
            }
            SttEvent::Partial { text } => self.words(text),
            SttEvent::LikelyEnd { text } => {
                self.words(text.clone());
                self.answer_early(text);
            }
            SttEvent::Resumed => {
                self.drop_speculation();
                if let Some(hearing) = &mut self.hearing {
                    hearing.last = self.now;
                }
            }
            SttEvent::TurnEnded { text, .. } => self.turn_ended(text),
            SttEvent::Lost { reason } => {
                self.stt_lost = true;
                self.problem("listening", &reason, false);
            }
            SttEvent::Restored { .. } => {
                self.stt_lost = false;
                if let Some(hearing) = &mut self.hearing {
                    hearing.last = self.now;
                }
            }
            SttEvent::Failed(error) => {
                self.stt_lost = false;
                self.problem("listening", &error.to_string(), true);
                let said = self.hearing.take().map(|hearing| hearing.text).unwrap_or_default();
                self.end_of_turn(said);
            }
        }
    }

    /// A sound of the user that is not known to be words: it holds an answer that is being heard.
    fn user_sounds(&mut self) {
        let now = self.now;
        match &self.reply {
            Some(reply) if !reply.speculative => {
                let settled = reply
                    .stamps
                    .first_sent
                    .is_some_and(|sent| now >= sent + self.options.barge_in.settle);
                if settled {
                    self.hold();
                }
            }
            _ => self.hearing.get_or_insert_default().last = now,
        }
    }

    /// Words of the user, all of his turn so far.
    fn words(&mut self, text: String) {
        if text.is_empty() || self.answered.as_deref() == Some(text.as_str()) {
            return;
        }
        if self.reply.as_ref().is_some_and(|reply| !reply.speculative) {
            if !self.counts(&text) {
                return;
            }
            self.interrupt();
        }
        let turn = self.turn + 1;
        let now = self.now;
        let hearing = self.hearing.get_or_insert_default();
        hearing.last = now;
        if hearing.text != text {
            hearing.text = text.clone();
            self.actions.push(Action::Tell(ServerMessage::User { turn, text, done: false }));
        }
    }

    /// Whether words are enough to interrupt.
    fn counts(&self, text: &str) -> bool {
        let barge_in = &self.options.barge_in;
        let words = text.split_whitespace().filter(|word| {
            let word = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
            !word.is_empty() && !barge_in.fillers.contains(&word)
        });
        barge_in.enabled && words.count() >= barge_in.min_words.max(1)
    }

    fn turn_ended(&mut self, text: String) {
        // The recogniser knows better than the detector, whose silence takes a while to count.
        self.speech = false;
        if self.answered.take().is_some_and(|answered| answered == text) {
            return;
        }
        if self.reply.as_ref().is_some_and(|reply| !reply.speculative) && !self.counts(&text) {
            // Nothing was said, or nothing that counts as an interruption.
            self.hearing = None;
            self.resume();
            return;
        }
        if text.trim().is_empty() {
            self.hearing = None;
            self.drop_speculation();
            return;
        }
        self.words(text.clone());
        self.hearing = None;
        self.end_of_turn(text);
    }

    pub(super) fn hearing_timed_out(&mut self) {
        let Some(hearing) = self.hearing.take() else { return };
        if self.stt_lost {
            // It will be recognised when the recogniser is back.
            self.drop_speculation();
            return;
        }
        if !hearing.text.is_empty() {
            self.answered = Some(hearing.text.clone());
        }
        self.end_of_turn(hearing.text);
    }

    pub(super) fn typed(&mut self, text: &str) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        self.hearing = None;
        let stamps =
            Stamps { speech_end: self.now, transcript: Some(self.now), ..Stamps::default() };
        self.take_turn(text.into(), stamps);
    }

    /// The user has said all of `text`.
    fn end_of_turn(&mut self, text: String) {
        if text.trim().is_empty() {
            self.drop_speculation();
            return;
        }
        let now = self.now;
        let spoken = self.speech_end.filter(|_| !self.speech).unwrap_or(now);
        if let Some(mut reply) = self.reply.take_if(|reply| reply.speculative) {
            if reply.user == text {
                self.turn += 1;
                self.context.user(&text);
                reply.stamps.speech_end = spoken;
                reply.stamps.transcript = Some(now);
                self.actions.push(Action::Tell(ServerMessage::User {
                    turn: self.turn,
                    text,
                    done: true,
                }));
                reply.confirm(&mut self.actions);
                self.tell_reply(&reply);
                self.expect_played(&mut reply);
                self.run_tools(&mut reply);
                self.reply = Some(reply);
                return;
            }
            self.drop_reply(reply);
        }
        let stamps = Stamps { speech_end: spoken, transcript: Some(now), ..Stamps::default() };
        self.take_turn(text, stamps);
    }

    /// Begins a turn, or keeps it until the answer before is flushed. What was being answered is answered no more.
    fn take_turn(&mut self, text: String, stamps: Stamps) {
        self.interrupt();
        self.drop_speculation();
        match (&self.flushing, &mut self.next) {
            (None, _) => self.begin_turn(&text, stamps),
            (Some(_), Some((earlier, kept))) => {
                *earlier = format!("{earlier} {text}");
                *kept = stamps;
            }
            (Some(_), next) => *next = Some((text, stamps)),
        }
    }

    fn answer_early(&mut self, text: String) {
        let most = self.options.eager_answers;
        let busy = self.reply.is_some() || self.flushing.is_some() || text.trim().is_empty();
        let Some(hearing) = self.hearing.as_mut().filter(|hearing| !busy && hearing.eager < most)
        else {
            return;
        };
        hearing.eager += 1;
        let mut context = self.context.clone();
        context.user(&text);
        self.epoch += 1;
        let stamps = Stamps { speech_end: self.now, ..Stamps::default() };
        let mut reply = Reply::new(self.epoch, self.turn + 1, &text, stamps, &self.options);
        reply.speculative = true;
        self.ask(&mut reply, context.messages().to_vec());
        self.reply = Some(reply);
    }

    fn drop_speculation(&mut self) {
        if let Some(reply) = self.reply.take_if(|reply| reply.speculative) {
            self.drop_reply(reply);
        }
    }

    fn hold(&mut self) {
        let barge_in = &self.options.barge_in;
        let (enabled, until) = (barge_in.enabled, self.now + barge_in.hold);
        if let Some(reply) = &mut self.reply
            && enabled
            && reply.is_audible()
            && reply.hold.is_none()
        {
            reply.hold = Some(until);
            self.actions.push(Action::Pause { epoch: reply.epoch });
        }
    }

    /// It was no interruption.
    pub(super) fn resume(&mut self) {
        let Some(mut reply) = self.reply.take() else { return };
        if reply.hold.take().is_some() {
            self.actions.push(Action::Resume { epoch: reply.epoch });
            self.expect_played(&mut reply);
        }
        self.reply = Some(reply);
    }

    /// The answer ends here. What of it was heard is known when the client says so.
    pub(super) fn interrupt(&mut self) {
        let Some(reply) = self.reply.take_if(|reply| !reply.speculative) else { return };
        let epoch = reply.epoch;
        let audible = reply.is_audible();
        self.stop(&reply);
        if audible {
            self.actions.push(Action::Flush { epoch });
            self.flushing = Some((reply, self.now + self.options.patience.flushing));
        } else {
            self.close(reply, true);
        }
    }

    pub(super) fn flushed(&mut self, epoch: u32, samples: u64) {
        if let Some((mut reply, _)) = self.flushing.take_if(|(reply, _)| reply.epoch == epoch) {
            reply.played = samples.clamp(reply.played, reply.samples().max(reply.played));
            self.close(reply, true);
        }
    }
}
