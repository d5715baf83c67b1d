//! What can go wrong between a Qwen3-TTS checkpoint and a sample, each case with the thing it is about.

use std::path::PathBuf;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure of this crate. Variants carry data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the decoder says: checkpoints, tokenizers, devices, sampling.
    #[error(transparent)]
    Model(#[from] mk_model::Error),

    // === Files ===
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    // === Running ONNX graphs ===
    /// ONNX Runtime is demanded, and its library is in none of the folders.
    #[error("no ONNX Runtime library found in {searched}; `cargo xtask setup --onnx` installs one")]
    NoOnnxRuntime {
        /// The folders that were looked in.
        searched: String,
    },
    /// A file that cannot serve as the ONNX Runtime library.
    #[error("{}: cannot be used as ONNX Runtime: {reason}", path.display())]
    OnnxRuntime {
        /// The library's file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// ONNX Runtime does not run on this CUDA device.
    #[error("ONNX Runtime on CUDA device {ordinal} is not available: {reason}")]
    Cuda {
        /// The device.
        ordinal: usize,
        /// What it said.
        reason: String,
    },
    /// An engine does not load or run a graph.
    #[error("{engine}: {graph}: {reason}")]
    Graph {
        /// The engine.
        engine: &'static str,
        /// The graph: its file, where it has one.
        graph: String,
        /// What the engine said.
        reason: String,
    },
    /// A tensor that is not what it is used as.
    #[error("a tensor cannot be used: {reason}")]
    Value {
        /// Why not.
        reason: String,
    },

    // === Codec ===
    /// Codes that are not whole frames.
    #[error("{found} codes are not whole frames of {groups}")]
    NotWholeFrames {
        /// Codes handed in.
        found: usize,
        /// Codes of a frame.
        groups: usize,
    },
    /// A code that its codebook has no entry for.
    #[error("code {code} of group {group} in frame {frame} is out of range: there are {size}")]
    CodeOutOfRange {
        /// The frame, from the beginning of the stream.
        frame: u64,
        /// The group.
        group: usize,
        /// The code.
        code: u32,
        /// Entries of a codebook.
        size: usize,
    },
    /// The decoder gave a sample that is NaN or infinite.
    #[error("the codec's sample in frame {frame} is not a finite number")]
    SampleNotFinite {
        /// The frame, from the beginning of the stream.
        frame: u64,
    },
}
