//! The project's tasks: `cargo xtask COMMAND`.

mod bench;
mod browser;
#[cfg(feature = "codegen")]
mod codegen;
mod doctor;
mod doubles;
mod fuzz;
mod goldens;
mod kernels;
mod parity;
mod picture;
mod setup;
mod soak;
mod synth;
mod test;
mod voice;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's tasks")]
enum Task {
    Bench(bench::Args),
    Browser(browser::Args),
    #[cfg(feature = "codegen")]
    Codegen(codegen::Args),
    Doctor(doctor::Args),
    Doubles(doubles::Args),
    Fuzz(fuzz::Args),
    Goldens(goldens::Args),
    Kernels(kernels::Args),
    Parity(parity::Args),
    Picture(picture::Args),
    Setup(setup::Args),
    Soak(soak::Args),
    Synth(synth::Args),
    Test(test::Args),
    Voice(voice::Args),
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Bench(args) => bench::run(&args),
        Task::Browser(args) => browser::run(&args, &mk_examples::repo_root()?),
        #[cfg(feature = "codegen")]
        Task::Codegen(args) => codegen::run(&args, &mk_examples::repo_root()?),
        Task::Doctor(args) => doctor::run(&args),
        Task::Doubles(args) => doubles::run(&args, &mk_examples::repo_root()?),
        Task::Fuzz(args) => fuzz::run(&args, &mk_examples::repo_root()?),
        Task::Goldens(args) => goldens::run(&args),
        Task::Kernels(args) => kernels::run(&args, &mk_examples::repo_root()?),
        Task::Parity(args) => parity::run(&args),
        Task::Picture(args) => picture::run(&args),
        Task::Setup(args) => setup::run(&args, &mk_examples::repo_root()?),
        Task::Soak(args) => soak::run(&args),
        Task::Synth(args) => synth::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Voice(args) => voice::run(&args, &mk_examples::repo_root()?),
    }
}
