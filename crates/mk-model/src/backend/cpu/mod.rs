//! The decoder on any CPU: the default backend, and what a GPU backend is held to.
//!
//! Weights are used as stored, mapped, with f32 sums. At [`Precision::Bf16`] the inputs of matrix products and the
//! cache are rounded to bf16 and everything else stays f32; at [`Precision::F32`] nothing is rounded.

mod attention;
mod forward;
mod kv_cache;
mod weights;

use std::ops::ControlFlow;
use std::sync::Arc;

use super::rope::inverse_frequencies;
use super::{Backend, Input, Output, Precision, Readout, Run, State, Step, decode_on_host};
use crate::checkpoint::{Layout, TensorFiles};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::raw::Isa;
use crate::raw::kernels::Kernels;
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
    precision: Precision,
    kernels: Kernels,
    threads: rayon::ThreadPool,
    inverse_frequencies: Vec<f32>,
}

impl CpuBackend {
    /// Takes tensors that have passed the audit.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for an instruction set the machine lacks, [`Error::Threads`].
    pub(crate) fn new(
        config: &Config,
        layout: &Layout,
        tensors: &TensorFiles,
        precision: Precision,
        options: CpuOptions,
    ) -> Result<Self> {
        let isa = options.isa.unwrap_or_else(|| Isa::available()[0]);
        let kernels = Kernels::of(isa).ok_or_else(|| Error::Unavailable {
            what: isa.to_string(),
            reason: "this machine does not have the instruction set".into(),
        })?;
        // Zero means one thread a core to rayon.
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or(0))
            .thread_name(|i| format!("mk-cpu-{i}"))
            .build()
            .map_err(|e| Error::Threads(e.to_string()))?;
        Ok(Self {
            config: config.clone(),
            weights: ModelWeights::new(config, layout, tensors, precision),
            precision,
            kernels,
            threads,
            inverse_frequencies: inverse_frequencies(config.rope_theta, config.head_dim),
        })
    }
}

/// A CPU backend is shared by its sequences.
impl Backend for Arc<CpuBackend> {
    fn describe(&self) -> String {
        let (threads, isa) = (self.threads.current_num_threads(), self.kernels.isa());
        format!("CPU, {threads} threads, {isa}, {}", self.precision)
    }

    fn state(&self, _capacity: usize) -> Result<Box<dyn State>> {
        let cache = KvCache::new(&self.config, self.precision);
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

    fn extend(&mut self, input: Input<'_>, readout: Readout) -> Result<Output> {
        let before = self.cache.len();
        let (backend, cache) = (&self.backend, &mut self.cache);
        let forward = Forward { model: backend, readout };
        let result = backend.threads.install(|| forward.run(cache, input));
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
