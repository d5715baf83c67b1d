//! `cargo xtask voice`: what the voice loop costs, and whether it lasts, with doubles of the services.

mod bench;
mod drive;
mod soak;

use anyhow::Result;
use clap::Subcommand;

/// Measure the voice loop with doubles of the services.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Args),
    Soak(soak::Args),
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match &args.command {
        Command::Bench(args) => runtime.block_on(bench::run(args)),
        Command::Soak(args) => runtime.block_on(soak::run(args)),
    }
}
