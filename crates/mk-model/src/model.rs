//! A model: one set of weights on one backend, shared by any number of sequences.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::backend::cpu::{CpuBackend, CpuOptions, Machine};
#[cfg(feature = "cuda")]
use crate::backend::cuda::CudaBackend;
use crate::backend::{Backend, CudaOptions, Precision};
use crate::checkpoint::{Checkpoint, Layout, Progress, Tensor, TensorFiles, audit};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::linear::Linear;

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// This machine's processor.
    Cpu(CpuOptions),
    /// An NVIDIA GPU, by its ordinal.
    Cuda(usize),
    /// The same, with more said about it.
    CudaWith(CudaOptions),
}

impl Default for Device {
    fn default() -> Self {
        Self::Cpu(CpuOptions::default())
    }
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModelOptions {
    /// Where it runs.
    pub device: Device,
    /// What it computes with.
    pub precision: Precision,
}

/// A loaded model. Cloning shares the weights.
#[derive(Clone)]
pub struct Model {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) heads: usize,
    pub(crate) has_embedding: bool,
    pub(crate) eos_token_ids: Vec<u32>,
    pub(crate) backend: Box<dyn Backend>,
    precision: Precision,
    /// For what is computed on the CPU beside the model.
    machine: Arc<Machine>,
}

impl Model {
    /// Loads a Qwen3.
    ///
    /// # Errors
    /// Those of [`Model::load_with_progress`].
    pub fn load(checkpoint: &Checkpoint, options: &ModelOptions) -> Result<Self> {
        Self::load_with_progress(checkpoint, options, &mut |_| {})
    }

    /// Loads a Qwen3 and says how far it has come: every weight is read and checked once.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] with everything that is wrong with the checkpoint; [`Error::Unavailable`] for a device
    /// that is not there.
    pub fn load_with_progress(
        checkpoint: &Checkpoint,
        options: &ModelOptions,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Self> {
        checkpoint.audit(progress)?;
        let layout = Layout::qwen3();
        let eos = checkpoint.eos_token_ids().to_vec();
        Self::build(checkpoint.config(), &layout, checkpoint.tensors(), eos, options)
    }

    /// Loads a decoder that is part of another model's checkpoint, or has other heads, such as the talker and the code
    /// predictor of Qwen3-TTS. `dir` is named in errors.
    ///
    /// # Errors
    /// Those of [`Model::load_with_progress`].
    pub fn load_part(
        dir: &Path,
        config: &Config,
        layout: &Layout,
        tensors: &TensorFiles,
        options: &ModelOptions,
    ) -> Result<Self> {
        let problems = audit(config, layout, tensors, &mut |_| {});
        if !problems.is_empty() {
            return Err(Error::Checkpoint { path: dir.into(), problems });
        }
        Self::build(config, layout, tensors, config.eos_token_ids.clone(), options)
    }

    fn build(
        config: &Config,
        layout: &Layout,
        tensors: &TensorFiles,
        eos_token_ids: Vec<u32>,
        options: &ModelOptions,
    ) -> Result<Self> {
        let (backend, machine): (Box<dyn Backend>, _) = match options.device {
            Device::Cpu(cpu) => {
                let machine = Arc::new(Machine::new(options.precision, cpu)?);
                let backend = CpuBackend::new(config, layout, tensors, Arc::clone(&machine));
                (Box::new(Arc::new(backend)), machine)
            }
            Device::Cuda(ordinal) => {
                let device = Device::CudaWith(CudaOptions { ordinal, ..CudaOptions::default() });
                let options = ModelOptions { device, ..*options };
                return Self::build(config, layout, tensors, eos_token_ids, &options);
            }
            #[cfg(feature = "cuda")]
            Device::CudaWith(cuda) => {
                let precision = options.precision;
                let backend = CudaBackend::new(config, layout, tensors, precision, cuda)?;
                let machine = Machine::new(precision, CpuOptions::default())?;
                (Box::new(Arc::new(backend)), Arc::new(machine))
            }
            #[cfg(not(feature = "cuda"))]
            Device::CudaWith(_) => {
                return Err(Error::Unavailable {
                    what: "the CUDA backend".into(),
                    reason: "this program was built without the feature `cuda`".into(),
                });
            }
        };
        let inner = Inner {
            config: config.clone(),
            heads: layout.heads.len(),
            has_embedding: layout.embedding.is_some(),
            eos_token_ids,
            backend,
            precision: options.precision,
            machine,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The model's dimensions.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Ids that end a generation.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.inner.eos_token_ids
    }

    /// A dense layer of weight `[outputs, inputs]` and bias `[outputs]`, at the model's precision, on the threads the
    /// model has (on a device of its own: on threads of the CPU beside it).
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for tensors of other shapes.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Linear> {
        Linear::new(Arc::clone(&self.inner.machine), self.inner.precision, weight, bias)
    }

    /// What the model runs on, for people.
    pub fn describe(&self) -> String {
        self.inner.backend.describe()
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("config", self.config())
            .field("backend", &self.describe())
            .finish_non_exhaustive()
    }
}
