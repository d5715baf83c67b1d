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
}
