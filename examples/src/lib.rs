//! What the examples and the project's tasks share: the flags by which a program finds and loads a model,
//! and where it finds ONNX Runtime.

mod load;
pub mod onnx;

pub use load::{BackendArg, DtypeArg, LoadArgs, locate, repo_root, synthetic_model};
