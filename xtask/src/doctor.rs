//! `cargo xtask doctor`: what this machine has, what that means for each crate, and how to get what is missing.

use anyhow::{Result, ensure};
use serde::Serialize;

mod cpu;
mod cuda;
mod machine;
mod onnx;
mod python;
mod sound;
mod text;

use machine::Machine;

/// Says what this machine has and lacks, and how to install what is missing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Whether what was looked for is there, and whether that matters today.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    /// Found.
    Present,
    /// Not found; something that works without it would do more, or do it faster.
    Optional,
    /// Not found; the code that is going to need it does not exist yet.
    NotNeededYet,
    /// Not found, and needed today.
    Missing,
}

/// The answer to one question about the machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Finding {
    /// What was looked for.
    what: &'static str,
    status: Status,
    /// What was found, or where it was looked for in vain.
    found: String,
    /// What follows from it, for each crate or task that it touches.
    means: Vec<Meaning>,
    /// The command that installs it, where it is missing.
    install: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Meaning {
    /// A crate, or a task of xtask.
    #[serde(rename = "for")]
    for_: &'static str,
    text: String,
}

impl Finding {
    fn new(what: &'static str, status: Status, found: impl Into<String>) -> Self {
        Self { what, status, found: found.into(), means: Vec::new(), install: None }
    }

    fn means(mut self, for_: &'static str, text: impl Into<String>) -> Self {
        self.means.push(Meaning { for_, text: text.into() });
        self
    }

    /// Says how to install it, where it is not there.
    fn install(mut self, command: impl Into<String>) -> Self {
        if self.status != Status::Present {
            self.install = Some(command.into());
        }
        self
    }
}

/// Looks and prints.
///
/// # Errors
/// Where something that is needed today is missing.
pub fn run(args: &Args) -> Result<()> {
    let findings = examine(&Machine::this());
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print!("{}", text::table(&findings));
    }
    let missing = findings.iter().filter(|finding| finding.status == Status::Missing);
    let missing: Vec<&str> = missing.map(|finding| finding.what).collect();
    ensure!(missing.is_empty(), "needed today, and missing: {}", missing.join(", "));
    Ok(())
}

fn examine(machine: &Machine) -> Vec<Finding> {
    vec![
        cpu::processor(machine),
        cpu::memory(machine),
        cpu::compiler(machine),
        cuda::driver(mk_sys::driver::probe()),
        cuda::nvcc(machine),
        onnx::library(machine),
        sound::library(machine),
        sound::devices(machine),
        python::reference(machine),
        python::hub(machine),
    ]
}
