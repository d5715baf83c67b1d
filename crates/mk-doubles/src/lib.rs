//! Doubles of the paid services that a voice loop talks to: Deepgram's listening and OpenAI's chat.
//!
//! [`Doubles`] serve Deepgram's `/v1/listen` (Nova-3) and `/v2/listen` (Flux), and OpenAI's `/v1/chat/completions` and
//! `/v1/models` on one address of the loopback, true to the wire: the vendors' own SDKs are run against them. They do not
//! recognise speech or think of an answer, they play scripts:
//!
//! - a [`ListenScript`] says what is heard, at times of the audio received or where the audio is loud;
//! - a [`ChatScript`] says what is answered, and how fast;
//! - [`Faults`] say what goes wrong. They can be changed at any time: [`Doubles::faults`].
//!
//! What they received is in the [`Record`], with what the client did wrong.
//!
//! ```
//! use mk_doubles::{ChatScript, Doubles, DoublesOptions, ListenScript};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> mk_doubles::Result<()> {
//! let doubles = Doubles::start(DoublesOptions {
//!     deepgram_key: Some("dg-test".into()),
//!     openai_key: Some("sk-test".into()),
//!     listen: ListenScript::turns([("What is the capital of France?", 0.5, 1.9)]),
//!     chat: ChatScript::say(["Paris."]),
//!     ..DoublesOptions::default()
//! })
//! .await?;
//! println!("DEEPGRAM_BASE_URL={} OPENAI_BASE_URL={}", doubles.deepgram_url(), doubles.openai_url());
//! assert_eq!(doubles.record().chats_total, 0);
//! doubles.shutdown().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod chat;
mod doubles;
pub mod error;
pub mod fault;
mod ids;
mod listen;
mod options;
pub mod record;
pub mod script;
mod wire;

pub use doubles::Doubles;
pub use error::{Error, Result};
pub use fault::{Fault, FaultControl, FaultKind, Faults, Service};
pub use options::DoublesOptions;
pub use record::{ChatRecord, ListenApi, ListenEnd, ListenRecord, Record};
pub use script::{ChatScript, ListenScript, Reply};
