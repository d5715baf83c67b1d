//! One conversation: what a client's transport holds of it.

use tokio::sync::mpsc;

use crate::protocol::{ClientMessage, ServerMessage};

/// A conversation that is going on. It ends when `input` is dropped, or by itself, which closes `output`.
#[derive(Debug)]
pub struct Session {
    /// What the client says.
    pub input: mpsc::Sender<ClientMessage>,
    /// What the client is told. Must be read: where it is full for seconds, the conversation ends.
    pub output: mpsc::Receiver<ServerMessage>,
}
