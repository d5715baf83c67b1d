//! Prefill: a batch of positions through the layers on the tensor cores, by kernels of their own.

use mk_sys::abi::{MK_PREFILL_BATCH, MkShape};
use mk_sys::device::{Device, Memory};

use super::CudaState;
use super::raw::{self, PrefillCall};
use crate::backend::Input;
use crate::error::Result;

/// Positions that go through the layers together, at most.
pub(super) const BATCH: usize = MK_PREFILL_BATCH as usize;
/// From so many positions on a batch is faster than decode steps without the head.
pub(super) const WORTHWHILE: usize = 4;

/// Activations of a batch, for one prefill of a model at a time.
pub(super) struct Scratch {
    /// u32 `[BATCH]`.
    pub(super) ids: Memory,
    /// f32 `[BATCH][hidden_size]`.
    pub(super) rows: Memory,
    /// f32 `[BATCH][hidden_size]`: the residual stream.
    pub(super) x: Memory,
    /// bf16 `[BATCH][hidden_size]`.
    pub(super) normed: Memory,
    /// bf16 `[BATCH][kv_heads][q0, q1, k, v][head_dim]`.
    pub(super) qkv: Memory,
    /// bf16 `[BATCH][q_heads][head_dim]`.
    pub(super) queries: Memory,
    /// bf16 `[BATCH][q_heads][head_dim]`.
    pub(super) attended: Memory,
    /// bf16 `[BATCH][intermediate_size]`.
    pub(super) activated: Memory,
    /// f32 `[splits][tokens][hidden_size]`: parts of products of small batches.
    pub(super) partials: Memory,
}

impl Scratch {
    pub(super) fn new(device: &Device, shape: &MkShape) -> Result<Self> {
        let hidden = shape.hidden as usize;
        let (q, kv) = (shape.q_heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let rows = |bytes: usize| device.memory(BATCH * bytes);
        Ok(Self {
            ids: rows(4)?,
            rows: rows(4 * hidden)?,
            x: rows(4 * hidden)?,
            normed: rows(2 * hidden)?,
            qkv: rows(2 * (q + 2 * kv) as usize)?,
            queries: rows(2 * q as usize)?,
            attended: rows(2 * q as usize)?,
            activated: rows(2 * shape.inter as usize)?,
            partials: rows(hidden)?,
        })
    }
}

impl CudaState {
    /// Appends `input`, of at most [`BATCH`] positions, and waits for it.
    pub(super) fn prefill(&mut self, input: Input<'_>) -> Result<()> {
        let backend = &self.backend;
        let config = &backend.config;
        let tokens = input.positions(config.hidden_size);
        self.buffers.cache.reserve(&self.stream, self.len + tokens, self.len)?;
        // A panic elsewhere leaves nothing in the scratch memory that matters.
        let mut scratch = backend.scratch.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let scratch = match &mut *scratch {
            Some(scratch) => scratch,
            empty => empty.insert(Scratch::new(&backend.device, &backend.kernels.shape)?),
        };
        let by_rows = match input {
            Input::Tokens(ids) => {
                self.stream.upload(&scratch.ids, 0, bytemuck::cast_slice(ids))?;
                false
            }
            Input::Embeddings(rows) => {
                self.stream.upload(&scratch.rows, 0, bytemuck::cast_slice(rows))?;
                true
            }
        };
        let call = PrefillCall {
            kernels: &backend.kernels,
            weights: &backend.weights,
            cache: &self.buffers.cache,
            scratch,
            layers: config.num_hidden_layers,
            eps: config.rms_norm_eps,
            position: self.len,
            tokens,
            by_rows,
        };
        let launched = raw::prefill(&self.stream, &call);
        self.stream.synchronize()?;
        launched?;
        self.len += tokens;
        Ok(())
    }
}
