//! The turns of a conversation: who may speak, what is asked, what is played, and what counts as said.
//!
//! [`Machine`] is all of the logic and none of the work: it is given what happens ([`Event`]) and when, and answers with
//! what is to be done ([`Action`]). [`crate::session`] does it.

mod answering;
mod context;
mod event;
mod hearing;
mod machine;
mod options;
mod reply;
mod stamps;

pub use context::{Context, Part};
pub use event::{Action, Event, MAX_PIECES};
pub use machine::Machine;
pub use options::{BargeIn, Patience, TurnOptions};
