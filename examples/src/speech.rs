//! From the flags of a program to a loaded Qwen3-TTS.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use mk_tts::config::ModelType;
use mk_tts::runtime::{EngineChoice, RuntimeOptions};
use mk_tts::synth::Spec;
use mk_tts::{Tts, TtsOptions};

use crate::load::{BackendArg, LoadArgs, locate_with, repo_root};
use crate::onnx;

/// What of a repository is not beside its `config.json`.
const CODEC_FILES: [&str; 2] =
    ["speech_tokenizer/config.json", "speech_tokenizer/model.safetensors"];

/// On what a speech model runs.
#[derive(Debug, Clone, clap::Args)]
pub struct SpeechArgs {
    /// On what the decoders run.
    #[command(flatten)]
    pub load: LoadArgs,
    /// What runs the codec
    #[arg(long, value_enum, default_value_t = EngineArg::Auto)]
    engine: EngineArg,
    /// The ONNX Runtime library, where it is not found by itself
    #[arg(long, value_name = "FILE")]
    onnx_runtime: Option<PathBuf>,
}

/// An engine for the codec by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    /// ONNX Runtime where it is found, else rten
    Auto,
    /// ONNX Runtime
    Ort,
    /// rten, which is part of the program
    Rten,
}

impl SpeechArgs {
    /// Loads the model in a directory.
    ///
    /// # Errors
    /// Those of [`Tts::load`].
    pub fn load(&self, dir: &Path) -> Result<Tts> {
        let runtime = RuntimeOptions {
            engine: match self.engine {
                EngineArg::Auto => EngineChoice::Auto,
                EngineArg::Ort => EngineChoice::OnnxRuntime,
                EngineArg::Rten => EngineChoice::Rten,
            },
            threads: self.load.threads,
            cuda: (self.load.backend == BackendArg::Cuda).then_some(0),
            ..onnx::search(self.onnx_runtime.clone())
        };
        let options = TtsOptions {
            model: self.load.options(),
            runtime,
            cache_dir: Some(repo_root()?.join(".mk/codec")),
        };
        Ok(Tts::load(dir, &options)?)
    }
}

/// The directory of a speech model that is named by its directory or its hub id, as [`crate::locate`] finds it.
///
/// # Errors
/// Those of [`crate::locate`].
pub fn locate_speech(model: &str) -> Result<PathBuf> {
    locate_with(model, &CODEC_FILES)
}

/// A small random speech model in the project's folder, for programs that were given none; made if it is not there.
///
/// # Errors
/// The folder cannot be written.
pub fn synthetic_speech_model(model_type: ModelType) -> Result<PathBuf> {
    let dir = repo_root()?.join(format!(".mk/synthetic-tts-{model_type}"));
    if !dir.join("config.json").exists() {
        // With an end that it finds after some seconds, rather than where a guard sets it.
        let spec = Spec { eos_gain: 3.0, ..Spec::tiny(model_type) };
        spec.write(&dir).with_context(|| format!("making a checkpoint in {}", dir.display()))?;
    }
    Ok(dir)
}
