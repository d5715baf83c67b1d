//! The codec: 12.5 frames of 16 codes a second to samples, and back.
