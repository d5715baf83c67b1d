//! The speaker encoder: a voice as one vector.
