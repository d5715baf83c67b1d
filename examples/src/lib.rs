//! What the examples and the project's tasks share: the flags by which a program finds and loads a model.

mod load;

pub use load::{BackendArg, DtypeArg, LoadArgs, locate, repo_root, synthetic_model};
