//! What the examples and the project's tasks share: the flags by which a program finds and loads a model, where it finds
//! ONNX Runtime, text that comes piece by piece, and who takes part in a conversation.

mod load;
pub mod onnx;
mod pieces;
mod speech;
mod voice;

pub use load::{BackendArg, DtypeArg, LoadArgs, locate, repo_root, synthetic_model};
pub use pieces::Pieces;
pub use speech::{EngineArg, SpeechArgs, locate_speech, synthetic_speech_model};
pub use voice::{LlmArg, SttArg, TtsArg, VoiceArgs};
