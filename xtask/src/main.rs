//! The project's tasks: `cargo xtask COMMAND`.

mod doctor;
mod setup;

use std::path::{Path, PathBuf};

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's tasks")]
enum Task {
    Doctor(doctor::Args),
    Setup(setup::Args),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Doctor(args) => doctor::run(&args),
        Task::Setup(args) => setup::run(&args, &root()),
    }
}

/// The repository, which is where cargo found this package.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}
