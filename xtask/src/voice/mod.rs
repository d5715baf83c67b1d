//! `cargo xtask voice`: what the voice loop costs, whether it lasts, and whether it is heard, with doubles of the
//! services.

mod bench;
mod drive;
mod local;
mod soak;

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

/// Measure and try the voice loop with doubles of the services.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Local(local::Args),
    Soak(soak::Args),
}

/// Runs the command on the repository at `root`.
pub fn run(args: &Args, root: &Path) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match &args.command {
        Command::Bench(args) => runtime.block_on(bench::run(args)),
        Command::Local(args) => local::run(args, root),
        Command::Soak(args) => runtime.block_on(soak::run(args)),
    }
}
