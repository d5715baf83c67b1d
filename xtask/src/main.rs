//! The project's tasks: `cargo xtask COMMAND`.

mod bench;
mod parity;
mod synth;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's tasks")]
enum Task {
    Bench(bench::Args),
    Parity(parity::Args),
    Synth(synth::Args),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Bench(args) => bench::run(&args),
        Task::Parity(args) => parity::run(&args),
        Task::Synth(args) => synth::run(&args),
    }
}
