//! Checkpoints as the Hugging Face hub serves them: configuration files and safetensors in a directory.
//!
//! [`Checkpoint::open`] reads the small files and maps the large ones; nothing is copied. [`Checkpoint::audit`] then
//! holds the tensors against what the config says must be there, and reports everything that does not fit at once.

mod audit;
pub mod hub;
mod tensors;

use std::path::{Path, PathBuf};

pub use audit::{Layout, audit, shape_problems};
pub use tensors::{Dtype, Tensor, TensorFiles, parse_index};

pub(crate) use tensors::Stored;

use crate::config::Config;
use crate::error::{Error, Problem, Result};
use crate::generation_config::GenerationConfig;

/// A checkpoint directory, opened: its configuration read, its weights mapped.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    config: Config,
    generation: GenerationConfig,
    tensors: TensorFiles,
}

/// How far a long step of loading has come, for progress bars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress<'a> {
    /// What is being worked on: a file being downloaded, a tensor being checked.
    pub what: &'a str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

impl Checkpoint {
    /// Opens a directory that holds `config.json`, the safetensors files and, if there, `generation_config.json`.
    ///
    /// # Errors
    /// Files missing or broken, and whatever [`Config::from_json`] finds, all of it.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let config = Config::from_json(&read_text(&dir.join("config.json"))?);
        let generation_file = dir.join("generation_config.json");
        let generation = if generation_file.exists() {
            GenerationConfig::from_json(&read_text(&generation_file)?)
        } else {
            Ok(GenerationConfig::default())
        };
        let tensors = TensorFiles::open(dir);
        let mut problems = Vec::new();
        match (config, generation) {
            (Ok(config), Ok(generation)) => {
                return Ok(Self { dir: dir.into(), config, generation, tensors: tensors? });
            }
            (config, generation) => {
                problems.extend(config.err().into_iter().flatten());
                problems.extend(generation.err().into_iter().flatten());
            }
        }
        // Weights that cannot be opened must not hide that the model is one we do not run, nor the other way about.
        match tensors {
            Ok(tensors) => problems.extend_from_slice(tensors.problems()),
            Err(error) => problems
                .push(Problem::BadField { field: "weights".into(), reason: error.to_string() }),
        }
        Err(Error::Checkpoint { path: dir.into(), problems })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `config.json` says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What `generation_config.json` says; defaults where there is none.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The weights.
    pub fn tensors(&self) -> &TensorFiles {
        &self.tensors
    }

    /// Ids that end a generation: of `generation_config.json`, or else of `config.json`.
    pub fn eos_token_ids(&self) -> &[u32] {
        match self.generation.eos_token_ids.as_slice() {
            [] => &self.config.eos_token_ids,
            ids => ids,
        }
    }

    /// Checks that the tensors are those, in shape, type and values, that the config calls for.
    ///
    /// Reads every weight once (in parallel), which also brings the file into memory; `progress` hears of it.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] with all that was found.
    pub fn audit(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Result<()> {
        let mut problems = self.tensors.problems().to_vec();
        problems.extend(self.check_eos());
        problems.extend(audit(&self.config, &Layout::qwen3(), &self.tensors, progress));
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Checkpoint { path: self.dir.clone(), problems })
    }

    fn check_eos(&self) -> Option<Problem> {
        let vocab = self.config.vocab_size;
        let id = self.eos_token_ids().iter().find(|id| **id as usize >= vocab)?;
        let file = if self.generation.eos_token_ids.is_empty() {
            "config.json"
        } else {
            "generation_config.json"
        };
        Some(Problem::BadField {
            field: format!("{file}: eos_token_id"),
            reason: format!("{id} is not in the vocabulary of {vocab}"),
        })
    }
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })
}
