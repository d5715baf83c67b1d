//! Makes a reference with transformers or qwen_tts, through the scripts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Environment};

/// What a new reference is made of.
pub struct Recipe<'a> {
    /// Directory of the checkpoint.
    pub model: &'a Path,
    pub out: &'a Path,
    /// Text to run; random ids if `None`.
    pub prompt: Option<&'a str>,
    pub sequences: usize,
    pub positions: usize,
    pub greedy: usize,
    /// Where torch computes, by its own name for it.
    pub device: &'a str,
}

/// Runs `xtask/reference/reference.py`.
///
/// # Errors
/// No Python with torch and transformers, or the script failed; its message is passed on.
pub fn make_reference(repo: &Path, recipe: &Recipe<'_>) -> Result<()> {
    let python = find_python(repo)?;
    if let Some(parent) = recipe.out.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("{}", parent.display()))?;
    }
    let mut command = Command::new(&python);
    command.arg(repo.join("xtask/reference/reference.py"));
    command.arg("--model").arg(recipe.model).arg("--out").arg(recipe.out);
    command.arg("--greedy").arg(recipe.greedy.to_string()).args(["--device", recipe.device]);
    match recipe.prompt {
        Some(prompt) => command.arg("--prompt").arg(prompt),
        None => command
            .args(["--sequences", &recipe.sequences.to_string()])
            .args(["--positions", &recipe.positions.to_string()]),
    };
    run(command)
}

/// What a new reference of speech is made of.
pub struct SpeechRecipe<'a> {
    /// Directory of the checkpoint.
    pub model: &'a Path,
    /// Folder to write.
    pub out: &'a Path,
    /// Text to speak; the script's own if `None`.
    pub text: Option<&'a str>,
    /// Ways to speak, with commas between; all if `None`.
    pub modes: Option<&'a str>,
    /// Frames of each at most.
    pub frames: usize,
    /// Logits that are kept: every so manieth.
    pub every: usize,
    /// Random frames for the codec.
    pub codec_frames: usize,
    /// Samples that are kept: every so manieth.
    pub samples_every: usize,
}

impl<'a> SpeechRecipe<'a> {
    /// Everything, in full.
    pub fn new(model: &'a Path, out: &'a Path) -> Self {
        let (text, modes) = (None, None);
        Self { model, out, text, modes, frames: 8, every: 1, codec_frames: 48, samples_every: 1 }
    }
}

/// Runs `xtask/reference/tts.py`.
///
/// # Errors
/// No Python with qwen_tts, or the script failed; its message is passed on.
pub fn make_speech_reference(repo: &Path, recipe: &SpeechRecipe<'_>) -> Result<()> {
    let python = find_speech_python(repo)?;
    let mut command = Command::new(&python);
    command.arg(repo.join("xtask/reference/tts.py"));
    command.arg("--model").arg(recipe.model).arg("--out").arg(recipe.out);
    for (name, value) in [("--text", recipe.text), ("--modes", recipe.modes)] {
        if let Some(value) = value {
            command.args([name, value]);
        }
    }
    for (name, number) in [
        ("--frames", recipe.frames),
        ("--every", recipe.every),
        ("--codec-frames", recipe.codec_frames),
        ("--samples-every", recipe.samples_every),
    ] {
        command.args([name, &number.to_string()]);
    }
    run(command)
}

fn run(mut command: Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().context(program)?;
    if !status.success() {
        bail!("making the reference failed ({status}); what the script said is above");
    }
    Ok(())
}

/// A Python that has torch and transformers: the project's own environment, or else `python3`.
pub fn find_python(repo: &Path) -> Result<PathBuf> {
    find_python_with(repo, &setup::REFERENCE, "torch, transformers", "--reference")
}

/// A Python that has qwen_tts.
pub fn find_speech_python(repo: &Path) -> Result<PathBuf> {
    find_python_with(repo, &setup::REFERENCE_TTS, "qwen_tts", "--reference-tts")
}

/// A Python that can import `modules`; `flag` of `cargo xtask setup` makes one.
fn find_python_with(
    repo: &Path,
    environment: &Environment,
    modules: &str,
    flag: &str,
) -> Result<PathBuf> {
    let own = setup::python_of(&repo.join(environment.folder));
    let usable = |python: &PathBuf| {
        let probe = Command::new(python).args(["-c", &format!("import {modules}")]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    [own, PathBuf::from("python3")].into_iter().find(usable).with_context(|| {
        format!(
            "no reference to compare with, and no Python with {modules} to make one: run `cargo xtask setup \
             {flag}`, or pass --reference"
        )
    })
}
