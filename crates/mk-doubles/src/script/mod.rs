//! What the doubles say, as data: scripts can be written in JSON.

mod chat;
mod listen;

pub use chat::{ChatScript, DeltaSize, Reply, ScriptedToolCall, Usage};
pub use listen::{EnergyScript, ListenScript, Moment, MomentKind, TimeScript};
