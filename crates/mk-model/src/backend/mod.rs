//! The seam between a sequence of tokens and the machine that computes it.
//!
//! A [`Backend`] holds the weights of one model, uploaded and repacked as it likes, once. A [`State`] is one sequence
//! on it: its KV cache and whatever else belongs to that sequence alone, so that many run side by side.
//!
//! The seam is shaped for a device that is driven in long runs: [`State::decode`] hands over everything a run needs
//! (input, sampling, stop ids, number of tokens) and hears of each token as it is made. A device samples by itself;
//! a backend that cannot, samples with [`decode_on_host`].

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
mod gpu;
mod host;
pub(crate) mod rope;

use std::fmt;
use std::ops::ControlFlow;

pub use gpu::{CudaFault, CudaOptions};
pub use host::decode_on_host;

use crate::error::Result;
use crate::sampling::{Sampling, Seen};

/// What numbers are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Inputs of matrix products and the KV cache rounded to bf16, sums in f32: what the models are made for.
    #[default]
    Bf16,
    /// f32 throughout; bf16 weights are widened as they are used. To check against.
    F32,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        })
    }
}

/// The weights of one model on one device.
pub trait Backend: Send + Sync {
    /// What it runs on, for people: `CPU, 2 threads, AVX-512 BF16, bf16`.
    fn describe(&self) -> String;

    /// An empty sequence that may grow to `capacity` positions.
    ///
    /// # Errors
    /// Memory that cannot be had.
    fn state(&self, capacity: usize) -> Result<Box<dyn State>>;
}

/// One sequence on a device.
///
/// Inputs are checked before they come here (ids are in range, rows are whole and finite, they fit the capacity).
/// After an error the state is as it was before the call.
pub trait State: Send {
    /// Positions in the cache.
    fn len(&self) -> usize;

    /// Whether the cache is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all positions from `len` on.
    fn truncate(&mut self, len: usize);

    /// Another sequence with a copy of the cache, that goes on by itself.
    ///
    /// # Errors
    /// Memory that cannot be had.
    fn fork(&self) -> Result<Box<dyn State>>;

    /// Appends `input` to the cache, in one batch, and reads out what `readout` asks for.
    ///
    /// # Errors
    /// [`crate::Error::NotFinite`], or a failure of the device.
    fn extend(&mut self, input: Input<'_>, readout: Readout) -> Result<Output>;

    /// Appends `run.input`, then samples, up to `run.max_tokens` times: each token goes to `each` and, unless it ended
    /// the run, is fed back. The last token is not in the cache when the run ends.
    ///
    /// # Errors
    /// As [`State::extend`], and [`crate::Error::NothingToSample`].
    fn decode(
        &mut self,
        run: &mut Run<'_>,
        each: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<()>;
}

/// What a sequence is extended by.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Token ids, looked up in the embedding.
    Tokens(&'a [u32]),
    /// Rows that stand in for embeddings: f32 `[rows, hidden_size]`.
    Embeddings(&'a [f32]),
}

impl Input<'_> {
    /// Positions this input takes in a model of this width.
    pub fn positions(&self, hidden_size: usize) -> usize {
        match self {
            Self::Tokens(ids) => ids.len(),
            Self::Embeddings(rows) => rows.len() / hidden_size,
        }
    }
}

/// Positions of an input whose results are read out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rows {
    /// None of them.
    #[default]
    None,
    /// The last one.
    Last,
    /// All of them.
    All,
}

/// What to read out of an [`State::extend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readout {
    /// Logits of which positions.
    pub logits: Rows,
    /// Hidden states after the final norm of which positions.
    pub hidden: Rows,
    /// Which output head makes the logits; 0 for a model with one.
    pub head: usize,
}

impl Readout {
    /// Nothing: fill the cache.
    pub const NOTHING: Self = Self { logits: Rows::None, hidden: Rows::None, head: 0 };
    /// The logits of the last position.
    pub const LAST_LOGITS: Self = Self { logits: Rows::Last, ..Self::NOTHING };
    /// The logits of every position.
    pub const ALL_LOGITS: Self = Self { logits: Rows::All, ..Self::NOTHING };
}

/// What was read out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    /// f32 `[rows, vocab_size]`.
    pub logits: Vec<f32>,
    /// f32 `[rows, hidden_size]`.
    pub hidden: Vec<f32>,
}

/// A run of decode steps.
#[derive(Debug)]
pub struct Run<'a> {
    /// What precedes the first token sampled; at least one position.
    pub input: Input<'a>,
    /// How to sample.
    pub sampling: &'a Sampling,
    /// Ids the repetition penalty holds against a token; sampled ids are added.
    pub seen: &'a mut Seen,
    /// Number of the run's first draw, for the counter-based random numbers; one is used up a token.
    pub first_draw: u64,
    /// Tokens to sample at most; at least 1.
    pub max_tokens: usize,
    /// Ids that end the run; they are reported like any other.
    pub stop_ids: &'a [u32],
    /// What each step reports beside its token; `Rows::All` means as much as `Rows::Last` here.
    pub readout: Readout,
}

/// One token of a run.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The token sampled.
    pub token: u32,
    /// The logits it was sampled from, before any processing, if asked for.
    pub logits: Option<&'a [f32]>,
    /// The hidden state, after the final norm, those logits come from, if asked for.
    pub hidden: Option<&'a [f32]>,
}
