//! What the examples and the project's tasks share: the flags by which a program finds and loads a model, where it finds
//! ONNX Runtime, and text that comes piece by piece.

mod load;
pub mod onnx;
mod pieces;
mod speech;

pub use load::{BackendArg, DtypeArg, LoadArgs, locate, repo_root, synthetic_model};
pub use pieces::Pieces;
pub use speech::{EngineArg, SpeechArgs, locate_speech, synthetic_speech_model};
