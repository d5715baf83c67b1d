//! What can go wrong between a checkpoint directory and a token, each case with the thing it is about.

use std::fmt;
use std::path::PathBuf;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure of this crate. Variants carry data, so that a caller can act on them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // === Files ===
    /// A file could not be opened, read or mapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that should be JSON is not, or lacks what we need of it.
    #[error("{}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why reading it stopped.
        reason: String,
    },
    /// A safetensors file is truncated, or not one at all.
    #[error("{}: not a whole safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory holds none of the weight files a checkpoint has.
    #[error("{}: no model.safetensors and no model.safetensors.index.json", path.display())]
    NoWeights {
        /// The directory.
        path: PathBuf,
    },
    /// The checkpoint contradicts itself or asks for what this crate does not do. Holds everything found, not the
    /// first problem only.
    #[error("{}: {} problem(s)\n{}", path.display(), problems.len(), bullets(problems))]
    Checkpoint {
        /// The checkpoint's directory.
        path: PathBuf,
        /// All that was found.
        problems: Vec<Problem>,
    },
    /// The hub did not serve a file, and the cache does not hold it.
    #[error("hub: {repo}: {file}: {reason}")]
    Hub {
        /// `owner/name`.
        repo: String,
        /// The file asked for.
        file: String,
        /// The client's message.
        reason: String,
    },

    // === Text ===
    /// The tokenizer files are missing, unreadable, or do not fit the model.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The chat template is missing, does not parse, or refused the messages.
    #[error("chat template: {0}")]
    ChatTemplate(String),

    // === Running ===
    /// A token id that the model has no row for.
    #[error("token id {id} is out of range: the vocabulary has {vocab_size}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// An operation that needs at least one token or row got none.
    #[error("empty input: at least one token or embedding row is needed")]
    EmptyInput,
    /// Embedding rows of the wrong width or number.
    #[error("embeddings: {found} values are not whole rows of {width}")]
    EmbeddingShape {
        /// Values handed in.
        found: usize,
        /// Width of the model.
        width: usize,
    },
    /// An input row or a result that is NaN or infinite.
    #[error("not a finite number in {what} at position {position}")]
    NotFinite {
        /// `embeddings`, `hidden states` or `logits`.
        what: &'static str,
        /// Position in the sequence.
        position: usize,
    },
    /// The input does not fit what is left of the context.
    #[error("{wanted} more position(s) do not fit: {used} of {capacity} are used")]
    ContextFull {
        /// Positions asked for.
        wanted: usize,
        /// Positions in the cache.
        used: usize,
        /// Positions the cache may grow to.
        capacity: usize,
    },
    /// A sampling parameter outside its range.
    #[error("sampling: {name} = {value}: {expected}")]
    Sampling {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// Suppression, or logits of minus infinity, left no token to choose.
    #[error("sampling: every token is suppressed")]
    NothingToSample,
    /// The model has no such output head.
    #[error("output head {head} does not exist: the model has {heads}")]
    NoSuchHead {
        /// The head asked for.
        head: usize,
        /// How many there are.
        heads: usize,
    },

    // === Machine ===
    /// A backend, or an instruction set, that this machine or this build does not have.
    #[error("{what} is not available: {reason}")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// Why it cannot be had, and what would help.
        reason: String,
    },
    /// A device failed, or what runs on it did. It can be used again.
    #[error("the device failed: {0}")]
    Device(String),
    /// Worker threads could not be started.
    #[error("worker threads: {0}")]
    Threads(String),
}

/// One thing wrong with a checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// A tensor that the config calls for is not in the files.
    MissingTensor {
        /// Its name.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor that the config has no place for.
    ExtraTensor {
        /// Its name.
        name: String,
    },
    /// A tensor of another shape than the config gives it.
    WrongShape {
        /// Its name.
        name: String,
        /// By the config.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A tensor stored in a type other than bf16, f16 or f32.
    WrongDtype {
        /// Its name.
        name: String,
        /// In the file, as safetensors spells it.
        found: String,
    },
    /// A weight that is NaN or infinite.
    NotFinite {
        /// The tensor.
        name: String,
        /// Index of the first such value, row-major.
        index: usize,
    },
    /// The config ties the head to the embedding, the file holds another head.
    UntiedHead {
        /// The head's tensor.
        name: String,
    },
    /// A config field that asks for something this crate does not do.
    Unsupported {
        /// The field, as `config.json` writes it.
        field: String,
        /// What it asks for.
        found: String,
        /// What is supported.
        supported: String,
    },
    /// A config field that is missing, out of range, or contradicts another.
    BadField {
        /// The field, as the JSON file writes it.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingTensor { name, expected } => {
                write!(f, "tensor {name} is missing, expected shape {expected:?}")
            }
            Self::ExtraTensor { name } => write!(f, "tensor {name} has no place in this config"),
            Self::WrongShape { name, expected, found } => {
                write!(f, "tensor {name} has shape {found:?}, expected {expected:?}")
            }
            Self::WrongDtype { name, found } => {
                write!(f, "tensor {name} is stored as {found}, expected BF16, F16 or F32")
            }
            Self::NotFinite { name, index } => {
                write!(f, "tensor {name} holds a NaN or an infinity at index {index}")
            }
            Self::UntiedHead { name } => write!(
                f,
                "tensor {name} differs from the embedding although tie_word_embeddings is true"
            ),
            Self::Unsupported { field, found, supported } => {
                write!(f, "{field} = {found} is not supported, only {supported}")
            }
            Self::BadField { field, reason } => write!(f, "{field}: {reason}"),
        }
    }
}

fn bullets(problems: &[Problem]) -> String {
    problems.iter().map(|p| format!("  - {p}")).collect::<Vec<_>>().join("\n")
}
