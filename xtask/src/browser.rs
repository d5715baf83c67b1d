//! `cargo xtask browser`: the voice demo in a real browser, with a microphone that plays speech.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup::{self, call};

/// Programs that the checks need, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 2] = [("chromium", "chromium"), ("espeak-ng", "espeak-ng")];

/// Holds the voice demo's page against what a user does, in headless Chromium: a turn, interruptions, connections that
/// break. Pictures of the page go to .mk/browser.
///
/// Chromium and espeak-ng are installed where that is possible. Where they cannot be, nothing is checked, and that is
/// said; with CI=true it is a failure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the checks whose names contain this.
    #[arg(long)]
    only: Option<String>,
}

/// Runs the checks on the repository at `root`.
pub fn run(args: &Args, root: &Path) -> Result<()> {
    let prepared = setup::install_programs(&PROGRAMS, &[])
        .and_then(|()| setup::install(root, &setup::BROWSER));
    if let Err(missing) = prepared {
        ensure!(!setup::is_ci(), "the browser checks cannot run: {missing:#}");
        println!("\nNOT RUN: the voice demo was not tried in a browser: {missing:#}\n");
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let programs = ["--example", "voice_demo", "--bin", "mk-doubles"];
    let build = ["build", "--release", "--quiet"];
    call(Command::new(cargo).current_dir(root).args(build).args(programs))?;

    let pictures = root.join(".mk/browser");
    std::fs::create_dir_all(&pictures)
        .with_context(|| format!("cannot create {}", pictures.display()))?;
    let mut checks = Command::new(setup::python_of(&root.join(setup::BROWSER.folder)));
    checks.current_dir(root).arg("xtask/browser/check.py");
    checks.arg("--demo").arg(root.join("target/release/examples/voice_demo"));
    checks.arg("--doubles").arg(root.join("target/release/mk-doubles"));
    checks.arg("--out").arg(&pictures);
    if let Some(only) = &args.only {
        checks.args(["--only", only]);
    }
    call(&mut checks)
}
