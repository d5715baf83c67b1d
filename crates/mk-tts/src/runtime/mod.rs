//! What runs an ONNX graph: ONNX Runtime where it is found, rten everywhere.
