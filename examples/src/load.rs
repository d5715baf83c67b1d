//! From `--model` and its companions to a loaded model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use mk_model::checkpoint::Progress;
use mk_model::checkpoint::hub::{self, HubOptions};
use mk_model::synth::Spec;
use mk_model::{Checkpoint, CpuOptions, Device, Model, ModelOptions, Precision};

/// On what a model runs, and with which numbers.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadArgs {
    /// What to run on
    #[arg(long, value_enum, default_value_t = BackendArg::Cpu)]
    pub backend: BackendArg,
    /// What to compute with
    #[arg(long, value_enum, default_value_t = DtypeArg::Bf16)]
    pub dtype: DtypeArg,
    /// CPU threads; one for each core if not given
    #[arg(long)]
    pub threads: Option<usize>,
}

/// A backend by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// The processor
    Cpu,
    /// An NVIDIA GPU
    Cuda,
}

/// A number type by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// bf16 inputs, f32 sums
    Bf16,
    /// f32 throughout
    F32,
}

impl LoadArgs {
    /// The model of an opened checkpoint, loaded with a progress bar.
    ///
    /// # Errors
    /// Those of [`Model::load_with_progress`].
    pub fn load(&self, checkpoint: &Checkpoint) -> Result<Model> {
        let bar = progress_bar();
        let model = Model::load_with_progress(checkpoint, &self.options(), &mut |p| show(&bar, p))?;
        bar.finish_and_clear();
        Ok(model)
    }

    /// The same for what loads by itself.
    pub fn options(&self) -> ModelOptions {
        let device = match self.backend {
            BackendArg::Cpu => Device::Cpu(CpuOptions { threads: self.threads, isa: None }),
            BackendArg::Cuda => Device::Cuda(0),
        };
        ModelOptions { device, precision: self.precision() }
    }

    /// What to compute with.
    pub fn precision(&self) -> Precision {
        match self.dtype {
            DtypeArg::Bf16 => Precision::Bf16,
            DtypeArg::F32 => Precision::F32,
        }
    }
}

/// The directory of a checkpoint that is named by its directory or its hub id; downloaded, with a progress bar, where
/// it is not in the hub's cache. Where and with which token is taken from the environment, as the hub's tools do.
///
/// # Errors
/// Those of [`hub::locate`].
pub fn locate(model: &str) -> Result<PathBuf> {
    locate_with(model, &[])
}

/// As [`locate`], with files that are in folders of the repository.
pub(crate) fn locate_with(model: &str, also: &[&str]) -> Result<PathBuf> {
    let bar = progress_bar();
    let also = also.iter().map(ToString::to_string).collect();
    let options = HubOptions { also, ..HubOptions::from_vars(|name| std::env::var(name).ok()) };
    let dir = hub::locate(model, &options, &mut |p| show(&bar, p))?;
    bar.finish_and_clear();
    Ok(dir)
}

/// A small random checkpoint in the project's folder, for programs that were given none; made if it is not there.
///
/// # Errors
/// The folder cannot be written.
pub fn synthetic_model() -> Result<PathBuf> {
    let dir = repo_root()?.join(".mk/synthetic-tiny");
    // Its last file: what has it is whole.
    if !dir.join("config.json").exists() {
        let spec = Spec::tiny();
        spec.write(&dir).with_context(|| format!("making a checkpoint in {}", dir.display()))?;
    }
    Ok(dir)
}

/// The workspace's root, from where this crate was built; where that is gone (a binary on another machine), the current
/// folder.
///
/// # Errors
/// There is no current folder.
pub fn repo_root() -> Result<PathBuf> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    match built_in.filter(|root| root.is_dir()) {
        Some(root) => Ok(root.into()),
        None => std::env::current_dir().context("no current folder"),
    }
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:40} [{wide_bar}] {bytes}/{total_bytes}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn show(bar: &ProgressBar, progress: Progress<'_>) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
    bar.set_message(progress.what.to_string());
}
