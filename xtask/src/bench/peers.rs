//! Other engines, where `peers/setup.sh` has installed them: programs of their own that measure themselves in the same
//! way and print JSON.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::report::Engine;

/// What every engine is asked to measure.
pub struct Plan<'a> {
    pub model: &'a Path,
    pub threads: usize,
    pub positions: &'a [usize],
    pub prefill: &'a [usize],
    pub tokens: usize,
    pub repeats: usize,
}

/// Runs the peers that are installed below `repo`, and says which are not.
pub fn run(repo: &Path, plan: &Plan<'_>) -> Vec<Engine> {
    let python = repo.join(".peers/venv/bin/python");
    let llama = repo.join("peers/llama_bench.py");
    let candle = repo.join(".peers/candle-bench");
    let mut engines = Vec::new();
    for (name, program, script) in [("llama.cpp", &python, Some(&llama)), ("candle", &candle, None)]
    {
        if !program.exists() {
            eprintln!("{name} is not installed: peers/setup.sh does that");
            continue;
        }
        match measure(program, script.map(|s| s.as_path()), plan) {
            Ok(engine) => engines.push(engine),
            Err(error) => eprintln!("{name} could not be measured: {error:#}"),
        }
    }
    engines
}

fn measure(program: &Path, script: Option<&Path>, plan: &Plan<'_>) -> Result<Engine> {
    let list =
        |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let output = Command::new(program)
        .args(script)
        .arg("--model")
        .arg(plan.model)
        .args(["--threads", &plan.threads.to_string()])
        .args(["--positions", &list(plan.positions)])
        .args(["--prefill", &list(plan.prefill)])
        .args(["--tokens", &plan.tokens.to_string()])
        .args(["--repeats", &plan.repeats.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| program.display().to_string())?;
    if !output.status.success() {
        bail!("it ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // Libraries may have printed before the result, which is the last line.
    let line =
        text.lines().rev().find(|line| line.starts_with('{')).context("it printed no JSON")?;
    serde_json::from_str(line).with_context(|| format!("it printed {line}"))
}
