//! The decoder on any CPU: the default backend, and what a GPU backend is held to.
//!
//! Weights are used as stored, mapped, with f32 sums. At [`Precision::Bf16`](super::Precision::Bf16) the inputs of
//! matrix products and the cache are rounded to bf16 and everything else stays f32; at
//! [`Precision::F32`](super::Precision::F32) nothing is rounded.

mod attention;
mod forward;
mod kv_cache;
mod machine;
mod weights;

use std::ops::ControlFlow;
use std::sync::Arc;

pub(crate) use machine::Machine;
pub(crate) use weights::Matrix;

use super::rope::inverse_frequencies;
use super::{Backend, Input, Output, Readout, Run, State, Step, decode_on_host};
use crate::checkpoint::{Layout, TensorFiles};
use crate::config::Config;
use crate::error::Result;
use crate::raw::Isa;
use forward::Forward;
use kv_cache::KvCache;
use weights::ModelWeights;

/// How the CPU is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuOptions {
    /// Worker threads; one for each core if `None`.
    pub threads: Option<usize>,
    /// Instruction set; the best the machine has if `None`.
    pub isa: Option<Isa>,
}

/// A model's weights in main memory, and the threads that work on them.
pub struct CpuBackend {
    config: Config,
    weights: ModelWeights,
    machine: Arc<Machine>,
    inverse_frequencies: Vec<f32>,
}

impl CpuBackend {
    /// Takes tensors that have passed the audit.
    pub(crate) fn new(
        config: &Config,
        layout: &Layout,
        tensors: &TensorFiles,
        machine: Arc<Machine>,
    ) -> Self {
        Self {
            config: config.clone(),
            weights: ModelWeights::new(config, layout, tensors, machine.precision),
            machine,
            inverse_frequencies: inverse_frequencies(config.rope_theta, config.head_dim),
        }
    }
}

/// A CPU backend is shared by its sequences.
impl Backend for Arc<CpuBackend> {
    fn describe(&self) -> String {
        self.machine.describe()
    }

    fn state(&self, _capacity: usize) -> Result<Box<dyn State>> {
        let cache = KvCache::new(&self.config, self.machine.precision);
        Ok(Box::new(CpuState { backend: Arc::clone(self), cache }))
    }
}

struct CpuState {
    backend: Arc<CpuBackend>,
    cache: KvCache,
}

impl State for CpuState {
    fn len(&self) -> usize {
        self.cache.len()
    }

    fn truncate(&mut self, len: usize) {
        self.cache.truncate(len);
    }

    fn fork(&self) -> Result<Box<dyn State>> {
        let (backend, cache) = (Arc::clone(&self.backend), self.cache.clone());
        Ok(Box::new(CpuState { backend, cache }))
    }

    fn extend(&mut self, input: Input<'_>, readout: Readout) -> Result<Output> {
        let before = self.cache.len();
        let (backend, cache) = (&self.backend, &mut self.cache);
        let forward = Forward { model: backend, readout };
        let result = backend.machine.install(|| forward.run(cache, input));
        if result.is_err() {
            self.cache.truncate(before);
        }
        result
    }

    fn decode(
        &mut self,
        run: &mut Run<'_>,
        each: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        let vocab_size = self.backend.config.vocab_size;
        decode_on_host(self, vocab_size, run, each)
    }
}
