//! The decoder on an NVIDIA GPU: one persistent kernel makes a run of tokens (`kernels/decode`).
//!
//! The weights are repacked in the order in which the kernel reads them, once, and shared. Each sequence has its own
//! stream, cache and buffers, so sequences never touch each other's state; they take turns on the device, launch by
//! launch. What is computed with is [`Precision::Bf16`], as on the CPU: inputs of matrix products and the cache are
//! bf16, sums, norms, softmax and the residual stream f32.

mod bandwidth;
mod baseline;
mod kernels;
mod plan;
mod prefill;
mod raw;
mod run;
mod state;
mod weights;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use mk_sys::device::{Device, Memory, Stream};
use mk_sys::driver::DriverError;

use super::{Backend, CudaOptions, Input, Output, Precision, Readout, Run, State, Step};
use crate::checkpoint::{Layout, TensorFiles};
use crate::config::Config;
use crate::error::{Error, Result};
pub use bandwidth::read_bandwidth;
pub use baseline::Baseline;
use kernels::{Kernels, unavailable};
use plan::Plan;
use prefill::Scratch;
use state::Buffers;
use weights::Weights;

/// A model's weights on a GPU, and its kernels.
pub struct CudaBackend {
    config: Config,
    device: Device,
    options: CudaOptions,
    kernels: Kernels,
    weights: Weights,
    scratch: Mutex<Option<Scratch>>,
}

impl CudaBackend {
    /// Takes tensors that have passed the audit to a GPU.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is no such GPU, or no kernel for it or for the model's dimensions;
    /// [`Error::Device`] where it fails, memory that does not suffice included.
    pub(crate) fn new(
        config: &Config,
        layout: &Layout,
        tensors: &TensorFiles,
        precision: Precision,
        options: CudaOptions,
    ) -> Result<Self> {
        if precision != Precision::Bf16 {
            return Err(unavailable(format!("it computes with bf16, not with {precision}")));
        }
        let device = Device::open(options.ordinal).map_err(|error| match error {
            DriverError::Failed { .. } => Error::from(error),
            missing => unavailable(missing.to_string()),
        })?;
        let kernels = Kernels::load(&device, config, &options)?;
        let weights = Weights::load(&device, &kernels, config, layout, tensors)?;
        let scratch = Mutex::new(None);
        Ok(Self { config: config.clone(), device, options, kernels, weights, scratch })
    }
}

/// A CUDA backend is shared by its sequences.
impl Backend for Arc<CudaBackend> {
    fn describe(&self) -> String {
        let info = self.device.info();
        let (major, minor) = info.compute_capability;
        let Plan { blocks, slots, .. } = self.kernels.plan;
        let kernels = if self.kernels.portable { "portable kernels, " } else { "" };
        format!(
            "CUDA, {}, sm_{major}{minor}, {kernels}{blocks} blocks, rings of {slots}, bf16",
            info.name
        )
    }

    fn state(&self, capacity: usize) -> Result<Box<dyn State>> {
        let (layers, vocab) = (self.config.num_hidden_layers, self.config.vocab_size);
        if capacity > self.config.max_position_embeddings {
            let most = self.config.max_position_embeddings;
            return Err(unavailable(format!(
                "a sequence of {capacity} positions: the model has {most}"
            )));
        }
        Ok(Box::new(CudaState {
            backend: Self::clone(self),
            stream: self.device.stream()?,
            buffers: Buffers::new(&self.device, &self.kernels.shape, layers, vocab)?,
            logits: None,
            hidden: None,
            len: 0,
        }))
    }
}

struct CudaState {
    backend: Arc<CudaBackend>,
    stream: Stream,
    buffers: Buffers,
    /// f32 rows that a launch reads out, once one is asked to.
    logits: Option<Memory>,
    hidden: Option<Memory>,
    len: usize,
}

impl State for CudaState {
    fn len(&self) -> usize {
        self.len
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn fork(&self) -> Result<Box<dyn State>> {
        let backend = Arc::clone(&self.backend);
        let (device, shape) = (&backend.device, &backend.kernels.shape);
        let stream = device.stream()?;
        let cache = self.buffers.cache.fork(&stream, self.len)?;
        let buffers = Buffers::with(cache, device, shape, backend.config.vocab_size)?;
        let len = self.len;
        Ok(Box::new(CudaState { backend, stream, buffers, logits: None, hidden: None, len }))
    }

    fn extend(&mut self, input: Input<'_>, readout: Readout) -> Result<Output> {
        let before = self.len;
        let result = self.extend_by(input, readout);
        if result.is_err() {
            self.len = before;
        }
        result
    }

    fn decode(
        &mut self,
        run: &mut Run<'_>,
        each: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let before = self.len;
        let result = self.run(run, each);
        if result.is_err() {
            self.len = before;
        }
        result
    }
}

impl Drop for CudaState {
    fn drop(&mut self) {
        // Nothing may be freed that a launch still uses. If this fails, the device has failed for good.
        let _ = self.stream.synchronize();
    }
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        Self::Device(error.to_string())
    }
}
