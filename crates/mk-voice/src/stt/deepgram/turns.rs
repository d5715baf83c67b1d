//! Either kind of turns, behind one face.

use serde::Deserialize;

use super::Kind;
use super::clock::Clock;
use super::flux::Flux;
use super::messages::{ErrorMessage, FluxMessage, NovaMessage, Numbered};
use super::nova::Nova;
use crate::stt::SttEvent;

/// The turns of a conversation.
#[derive(Debug)]
pub(super) enum Turns {
    Flux(Flux),
    Nova(Nova),
}

impl Turns {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Flux => Self::Flux(Flux::default()),
            Kind::Nova => Self::Nova(Nova::default()),
        }
    }

    /// A message. The error is what ends the connection.
    pub(super) fn hear(
        &mut self,
        message: &str,
        clock: &Clock,
        events: &mut Vec<SttEvent>,
    ) -> Result<(), ErrorMessage> {
        match self {
            Self::Flux(flux) => {
                flux.number(read::<Numbered>(message).and_then(|numbered| numbered.sequence_id));
                match read(message) {
                    Some(FluxMessage::TurnInfo(info)) => flux.hear(info, clock, events),
                    Some(FluxMessage::Error(error)) => return Err(error),
                    Some(FluxMessage::Connected { .. }) | None => {}
                    Some(FluxMessage::Other) => tracing::trace!(message, "passed over"),
                }
            }
            Self::Nova(nova) => match read(message) {
                Some(NovaMessage::Results(results)) => nova.hear(results, clock, events),
                Some(NovaMessage::UtteranceEnd { last_word_end }) => {
                    nova.utterance_end(last_word_end, clock, events);
                }
                // It goes on after some, and closes after others, with a code that says more.
                Some(NovaMessage::Error(error)) => {
                    tracing::warn!(error = error.text(), "Nova reports an error");
                }
                Some(NovaMessage::Other) => tracing::trace!(message, "passed over"),
                None => {}
            },
        }
        Ok(())
    }

    pub(super) fn in_turn(&self) -> bool {
        match self {
            Self::Flux(flux) => flux.in_turn(),
            Self::Nova(nova) => nova.in_turn(),
        }
    }

    /// From where the next connection should hear the input.
    pub(super) fn replay_from(&self) -> u64 {
        match self {
            Self::Flux(flux) => flux.replay_from(),
            Self::Nova(nova) => nova.replay_from(),
        }
    }

    /// The connection is lost.
    pub(super) fn lost(&mut self, events: &mut Vec<SttEvent>) {
        if let Self::Flux(flux) = self {
            flux.lost(events);
        }
    }

    /// There is a connection, which will hear the input from `position` on.
    pub(super) fn connected(&mut self, position: u64) {
        match self {
            Self::Flux(flux) => flux.connected(position),
            Self::Nova(nova) => nova.connected(position),
        }
    }

    /// So many samples have been sent on this connection.
    pub(super) fn sent(&mut self, total: u64, events: &mut Vec<SttEvent>) {
        match self {
            Self::Flux(flux) => flux.sent(total, events),
            Self::Nova(nova) => nova.sent(total, events),
        }
    }

    /// The server has read the input up to `position`.
    pub(super) fn read_to(&mut self, position: u64) {
        match self {
            Self::Flux(flux) => flux.read_to(position),
            Self::Nova(nova) => nova.read_to(position),
        }
    }

    /// Ends the turn that is open with what is known of it.
    pub(super) fn cut_short(&mut self, events: &mut Vec<SttEvent>) {
        match self {
            Self::Flux(flux) => flux.cut_short(events),
            Self::Nova(nova) => nova.cut_short(events),
        }
    }

    /// `Finalize` was sent when the input had been sent up to `position`.
    pub(super) fn finalize_sent(&mut self, position: u64) {
        if let Self::Nova(nova) = self {
            nova.finalize_sent(position);
        }
    }

    /// Where a `Finalize` was sent that has not been answered.
    pub(super) fn finalizing(&self) -> Option<u64> {
        match self {
            Self::Flux(_) => None,
            Self::Nova(nova) => nova.finalizing(),
        }
    }

    /// `Finalize` will not be answered any more.
    pub(super) fn finalize_unanswered(&mut self, events: &mut Vec<SttEvent>) {
        if let Self::Nova(nova) = self {
            nova.finalize_unanswered(events);
        }
    }
}

/// What can be read is used; what cannot is not worth a conversation.
fn read<'a, T: Deserialize<'a>>(message: &'a str) -> Option<T> {
    serde_json::from_str(message)
        .inspect_err(|error| tracing::warn!(%error, "a message of Deepgram that cannot be read"))
        .ok()
}
