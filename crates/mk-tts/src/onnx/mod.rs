//! ONNX models, written from Rust.
