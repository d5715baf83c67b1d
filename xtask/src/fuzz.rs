//! `cargo xtask fuzz`: libFuzzer on what is read from disk, with the stable toolchain.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use mk_model::synth::Spec;

/// Fuzz the readers of config.json, of the index and of safetensors files.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to fuzz; all of it if left out
    #[arg(value_enum)]
    target: Option<Target>,
    /// Inputs to try, for each target
    #[arg(long, default_value_t = 20_000)]
    runs: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    Config,
    Index,
    Safetensors,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Index => "index",
            Self::Safetensors => "safetensors",
        }
    }

    /// Files of the synthetic checkpoint that this target begins with.
    fn seeds(self) -> &'static [&'static str] {
        match self {
            Self::Config => &["config.json", "generation_config.json"],
            Self::Index => &["model.safetensors.index.json"],
            Self::Safetensors => &["model.safetensors"],
        }
    }
}

/// What cargo-fuzz passes for coverage. The sanitizers proper need a nightly compiler; without unsafe code in the
/// readers, panics and assertions are what there is to find.
const RUSTFLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Ccodegen-units=1",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// The smallest model that can be written: mutations of a short file reach its header more often.
fn smallest(max_shard_bytes: Option<u64>) -> Spec {
    Spec {
        hidden_size: 2,
        intermediate_size: 2,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 2,
        vocab_size: 285,
        max_shard_bytes,
        ..Spec::tiny()
    }
}

/// Runs the command.
pub fn run(args: &Args, root: &Path) -> Result<()> {
    let dir = root.join("fuzz");
    let host = host()?;
    build(&dir, &host)?;
    let targets = args.target.map_or(Target::value_variants().to_vec(), |one| vec![one]);
    for target in targets {
        run_target(target, args.runs, &dir, &host)?;
    }
    Ok(())
}

fn build(dir: &Path, host: &str) -> Result<()> {
    // The cargo that runs this task, and so its toolchain.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        // With a target named, build scripts and procedural macros are built without these flags.
        .args(["build", "--release", "--locked", "--bins", "--target", host])
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"))
        .status()
        .context("cargo")?;
    ensure!(status.success(), "the fuzz targets do not build");
    Ok(())
}

fn run_target(target: Target, runs: u64, dir: &Path, host: &str) -> Result<()> {
    let name = target.name();
    let corpus = dir.join("corpus").join(name);
    let artifacts = dir.join("artifacts").join(name);
    let checkpoint = dir.join("target").join("checkpoint").join(name);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // One left behind by a run that was ended from outside may hold anything.
    let _ = fs::remove_dir_all(&checkpoint);
    smallest((target == Target::Index).then_some(600)).write(&checkpoint)?;
    for file in target.seeds() {
        fs::copy(checkpoint.join(file), corpus.join(file)).with_context(|| (*file).to_string())?;
    }

    println!("=== {name}: {runs} runs");
    let binary = dir.join("target").join(host).join("release").join(name);
    let status = Command::new(&binary)
        .arg(format!("-runs={runs}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        // A reader that trusts a length in a header breaks the first of these limits; the readers need some 30 MB.
        .args(["-rss_limit_mb=256", "-timeout=5", "-verbosity=0", "-print_final_stats=1"])
        .arg(&corpus)
        .env("MK_FUZZ_CHECKPOINT", &checkpoint)
        .status()
        .with_context(|| binary.display().to_string())?;
    fs::remove_dir_all(&checkpoint).with_context(|| checkpoint.display().to_string())?;
    ensure!(status.success(), "{name}: failed; the input is in {}", artifacts.display());
    Ok(())
}

/// The toolchain's own target triple.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc")?;
    let text = String::from_utf8(output.stdout).context("rustc -vV")?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc -vV names no host")?.to_string())
}
