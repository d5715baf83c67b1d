//! From text to frames of codes: the talker and the code predictor.
