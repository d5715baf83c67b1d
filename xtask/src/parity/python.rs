//! Makes a reference file with transformers, through the script beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

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
    command.arg("--greedy").arg(recipe.greedy.to_string());
    match recipe.prompt {
        Some(prompt) => command.arg("--prompt").arg(prompt),
        None => command
            .args(["--sequences", &recipe.sequences.to_string()])
            .args(["--positions", &recipe.positions.to_string()]),
    };
    let status = command.status().with_context(|| format!("{}", python.display()))?;
    if !status.success() {
        bail!("making the reference failed ({status}); what the script said is above");
    }
    Ok(())
}

/// A Python that has torch and transformers: the project's own environment, or else `python3`.
pub fn find_python(repo: &Path) -> Result<PathBuf> {
    let candidates = [repo.join(".venv-reference/bin/python"), PathBuf::from("python3")];
    let usable = |python: &PathBuf| {
        let probe = Command::new(python).args(["-c", "import torch, transformers"]).output();
        probe.is_ok_and(|output| output.status.success())
    };
    candidates.into_iter().find(usable).context(
        "no reference to compare with, and no Python with torch and transformers to make one: \
         run `cargo xtask setup --reference`, or pass --reference FILE",
    )
}
