//! `cargo xtask doubles`: the vendors' own SDKs for Python against the doubles of their services.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::setup::{self, SDK};

/// Runs Deepgram's and OpenAI's SDKs for Python against the doubles, in .venv-sdk.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Where the script and what the doubles play are.
const FOLDER: &str = "crates/mk-doubles/sdk";

/// Runs the command in the repository at `root`. It also makes sure that the check fails where a double is wrong.
pub fn run(_: &Args, root: &Path) -> Result<()> {
    setup::install(root, &SDK)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--quiet", "--bin", "mk-doubles"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    ensure!(build.status().context("cannot run cargo")?.success(), "mk-doubles cannot be built");

    ensure!(check(root, "faults.json")?, "the SDKs do not accept the doubles");
    println!("and of a double that is wrong:");
    ensure!(!check(root, "wrong.json")?, "the check accepts a double that sends half a message");
    println!("the SDKs accept the doubles, and the check notices one that is wrong");
    Ok(())
}

/// Whether the script accepts doubles with these faults.
fn check(root: &Path, faults: &str) -> Result<bool> {
    let doubles = Doubles::start(root, faults)?;
    let python = setup::python_of(&root.join(SDK.folder));
    let mut script = Command::new(&python);
    script.arg(root.join(FOLDER).join("check.py")).args(&doubles.urls);
    let status = script.status().with_context(|| format!("cannot run {}", python.display()))?;
    Ok(status.success())
}

/// The running program, ended when this is dropped.
struct Doubles {
    child: Child,
    /// Kept open: the program may print.
    _output: BufReader<ChildStdout>,
    /// Deepgram's and OpenAI's.
    urls: [String; 2],
}

impl Doubles {
    fn start(root: &Path, faults: &str) -> Result<Self> {
        // Cargo puts all programs of a profile beside each other.
        let program = std::env::current_exe()?.with_file_name("mk-doubles");
        let program = program.with_extension(std::env::consts::EXE_EXTENSION);
        let folder = root.join(FOLDER);
        let mut command = Command::new(&program);
        command.args(["--deepgram-key", "dg-test", "--openai-key", "sk-test"]);
        for (flag, file) in
            [("--listen", "listen.json"), ("--chat", "chat.json"), ("--faults", faults)]
        {
            command.arg(flag).arg(folder.join(file));
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let urls: serde_json::Value = serde_json::from_str(&line)
            .with_context(|| format!("mk-doubles printed {line:?} when it started"))?;
        let url = |name: &str| urls[name].as_str().unwrap_or_default().to_owned();
        Ok(Self { child, _output: output, urls: [url("deepgram_url"), url("openai_url")] })
    }
}

impl Drop for Doubles {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
