//! `cargo xtask goldens`: makes the committed references anew, with transformers, and the models they belong to.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mk_model::synth::{RopeLayout, Spec};

use crate::parity::python;

/// Make the committed golden files anew (needs Python with torch and transformers).
#[derive(Debug, clap::Args)]
pub struct Args {}

/// A synthetic model and the reference that is committed for it.
pub struct Golden {
    /// Name of the file, without its ending.
    pub name: &'static str,
    pub spec: Spec,
    sequences: usize,
    positions: usize,
}

/// Where the references lie, below the repository.
pub const FOLDER: &str = "xtask/goldens";

/// The models: what the published ones look like, only small, and one that is odd in every way a config allows.
pub fn all() -> Vec<Golden> {
    let odd = Spec {
        hidden_size: 75,
        intermediate_size: 201,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 3,
        head_dim: 42,
        vocab_size: 331,
        rope_theta: 5e5,
        rope_layout: RopeLayout::Parameters,
        tied: false,
        max_shard_bytes: Some(100_000),
        seed: 1,
        ..Spec::tiny()
    };
    vec![
        Golden { name: "tiny", spec: Spec::tiny(), sequences: 12, positions: 16 },
        Golden { name: "odd", spec: odd, sequences: 8, positions: 16 },
    ]
}

/// Runs the command.
pub fn run(_: &Args) -> Result<()> {
    let root = mk_examples::repo_root()?;
    for golden in all() {
        let model = root.join(".mk/goldens").join(golden.name);
        golden.spec.write(&model)?;
        let recipe = python::Recipe {
            model: &model,
            out: &root.join(FOLDER).join(format!("{}.npz", golden.name)),
            prompt: None,
            sequences: golden.sequences,
            positions: golden.positions,
            greedy: 24,
        };
        python::make_reference(&root, &recipe)?;
    }
    let tests = root.join("crates/mk-model/tests/goldens");
    let tiny = root.join(".mk/goldens/tiny");
    script(&root, "sampling.py", &[Path::new("--out"), &tests.join("sampling.json")])?;
    let chat = tests.join("chat.json");
    script(&root, "chat.py", &[Path::new("--model"), &tiny, Path::new("--out"), &chat])
}

fn script(root: &Path, name: &str, args: &[&Path]) -> Result<()> {
    let mut command = Command::new(python::find_python(root)?);
    command.arg(root.join("xtask/reference").join(name)).args(args);
    let status = command.status().with_context(|| name.to_string())?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use mk_model::{Checkpoint, CpuOptions, Device, Isa, Model, ModelOptions, Precision};

    use super::*;

    /// Every golden, at both precisions, by every instruction set this machine has.
    #[test]
    fn our_models_are_those_of_transformers() {
        let root = mk_examples::repo_root().unwrap();
        for golden in all() {
            let dir = tempfile::tempdir().unwrap();
            golden.spec.write(dir.path()).unwrap();
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            let reference = root.join(FOLDER).join(format!("{}.npz", golden.name));
            for precision in [Precision::F32, Precision::Bf16] {
                for isa in Isa::available() {
                    let device = Device::Cpu(CpuOptions { threads: Some(2), isa: Some(isa) });
                    let options = ModelOptions { device, precision };
                    let model = Model::load(&checkpoint, &options).unwrap();
                    println!("{} {}", golden.name, model.describe());
                    crate::parity::check(&model, &reference, precision).unwrap();
                }
            }
        }
    }

    /// A check that cannot fail is none: another model must not pass.
    #[test]
    fn another_model_fails() {
        let golden = &all()[0];
        let dir = tempfile::tempdir().unwrap();
        Spec { seed: 99, ..golden.spec.clone() }.write(dir.path()).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let reference =
            mk_examples::repo_root().unwrap().join(FOLDER).join(format!("{}.npz", golden.name));
        for precision in [Precision::F32, Precision::Bf16] {
            let options = ModelOptions { precision, ..ModelOptions::default() };
            let model = Model::load(&checkpoint, &options).unwrap();
            assert!(crate::parity::check(&model, &reference, precision).is_err());
        }
    }
}
