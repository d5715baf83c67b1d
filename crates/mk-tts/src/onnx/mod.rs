//! ONNX models, written from Rust: the few messages of the format that we need, and a builder of graphs.

mod builder;
pub mod cache;
mod proto;

pub use builder::{Attribute, Conv, Dim, Edge, Element, GraphBuilder, Model};
