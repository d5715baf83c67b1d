//! `cargo xtask parity`: is this the model that transformers, or qwen_tts, runs?

mod compare;
mod npz;
pub mod python;
mod reference;
pub mod speech;
mod verdict;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use mk_model::text::Tokenizer;
use mk_model::{Checkpoint, Model, Precision};
use mk_tts::runtime::{Runtime, RuntimeOptions};

use compare::GreedyRow;
use mk_examples::{BackendArg, LoadArgs, locate, repo_root};
use reference::Reference;
use verdict::Gate;

/// Compare a checkpoint's logits and greedy tokens with transformers', or a Qwen3-TTS' speech with qwen_tts'.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint directory or hub id (owner/name)
    #[arg(long)]
    model: String,
    #[command(flatten)]
    load: LoadArgs,
    /// The reference: a file, or for speech a folder; made, and kept for the next time, if not given
    #[arg(long)]
    reference: Option<PathBuf>,
    /// Make the reference anew (needs Python with torch and transformers, or with qwen_tts)
    #[arg(long)]
    regenerate: bool,
    /// Text to run or speak when the reference is made; random ids of the whole vocabulary without it
    #[arg(long)]
    prompt: Option<String>,
    /// Random sequences, when the reference is made
    #[arg(long, default_value_t = 48)]
    sequences: usize,
    /// Positions of each
    #[arg(long, default_value_t = 24)]
    positions: usize,
    /// Greedy tokens, or frames of speech, when the reference is made
    #[arg(long, default_value_t = 20)]
    greedy: usize,
    /// Where torch computes when the reference of a text model is made
    #[arg(long, default_value = "cpu")]
    reference_device: String,
}

/// Runs the command; an error, and so a non-zero exit, if parity does not hold.
pub fn run(args: &Args) -> Result<()> {
    let dir = locate(&args.model)?;
    if is_speech(&dir) {
        return speech(args, &dir);
    }
    let path = args.reference.clone().unwrap_or_else(|| default_reference(args, &dir, ".npz"));
    if args.regenerate || !path.exists() {
        if args.reference.is_some() && !args.regenerate {
            bail!("{}: no such file; --regenerate makes it", path.display());
        }
        println!("making the reference {} with transformers", path.display());
        let recipe = python::Recipe {
            model: &dir,
            out: &path,
            prompt: args.prompt.as_deref(),
            sequences: args.sequences,
            positions: args.positions,
            greedy: args.greedy,
            device: &args.reference_device,
        };
        python::make_reference(&repo_root()?, &recipe)?;
    }
    let reference = Reference::open(&path)?;

    let checkpoint = Checkpoint::open(&dir)?;
    let model = args.load.load(&checkpoint)?;
    let precision = args.load.precision();
    println!(
        "model      {}\nbackend    {}\nreference  {}\n",
        dir.display(),
        model.describe(),
        path.display()
    );

    let (gates, rows, noise) = compare(&model, &reference, precision)?;
    if !rows.is_empty() {
        print_table(&rows, Tokenizer::from_dir(&dir).ok().as_ref(), noise);
    }
    report(&gates)
}

/// The same for a Qwen3-TTS.
fn speech(args: &Args, dir: &Path) -> Result<()> {
    let folder = args.reference.clone().unwrap_or_else(|| default_reference(args, dir, ""));
    if args.regenerate || !folder.exists() {
        if args.reference.is_some() && !args.regenerate {
            bail!("{}: no such folder; --regenerate makes it", folder.display());
        }
        println!("making the reference {} with qwen_tts", folder.display());
        let recipe = python::SpeechRecipe {
            text: args.prompt.as_deref(),
            frames: args.greedy,
            ..python::SpeechRecipe::new(dir, &folder)
        };
        python::make_speech_reference(&repo_root()?, &recipe)?;
    }
    let runtime = Runtime::open(&RuntimeOptions {
        // The name that ONNX Runtime's own bindings know it by.
        library: std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from),
        threads: args.load.threads,
        cuda: (args.load.backend == BackendArg::Cuda).then_some(0),
        ..RuntimeOptions::default()
    })?;
    report(&speech::compare(dir, &folder, &args.load.options(), Some(&runtime))?)
}

/// Whether `config.json` is that of a Qwen3-TTS.
pub fn is_speech(dir: &Path) -> bool {
    let config = std::fs::read(dir.join("config.json")).unwrap_or_default();
    serde_json::from_slice::<serde_json::Value>(&config)
        .is_ok_and(|config| config["model_type"] == "qwen3_tts")
}

/// Without `--reference`: one for each checkpoint and prompt, in a folder that git ignores.
fn default_reference(args: &Args, model: &Path, ending: &str) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (&model, &args.prompt, args.sequences, args.positions, args.greedy).hash(&mut hasher);
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    let root = repo_root().unwrap_or_default();
    root.join(".mk/reference").join(format!("{name}-{:016x}{ending}", hasher.finish()))
}

/// Holds the model against everything the reference has.
fn compare(
    model: &Model,
    reference: &Reference,
    precision: Precision,
) -> Result<(Vec<Gate>, Vec<GreedyRow>, Option<f32>)> {
    let mut gates = Vec::new();
    let mut noise = None;
    if reference.logits_vocab.is_some() {
        let errors = compare::logits(model, reference)?;
        gates.extend(verdict::logits(&errors, reference.bf16_error.as_deref(), precision));
        println!(
            "logits     {} positions, largest absolute error {:.3}, same most likely token at {}",
            errors.batched.len(),
            errors.max_abs,
            errors.same_top
        );
        noise = (precision == Precision::Bf16).then_some(errors.max_abs);
    }
    let mut rows = Vec::new();
    if let Some(greedy) = &reference.greedy {
        rows = compare::greedy(model, reference, greedy)?;
        gates.push(verdict::greedy(&rows, noise));
        gates.push(verdict::free_run(&rows, &compare::free_run(model, reference, greedy)?));
    }
    if gates.is_empty() {
        bail!(
            "the reference holds nothing to judge a {precision} run by: it needs `greedy`, or `logits` (and, for \
             bf16, `bf16_logits_err`)"
        );
    }
    Ok((gates, rows, noise))
}

fn print_table(rows: &[GreedyRow], tokenizer: Option<&Tokenizer>, noise: Option<f32>) {
    let text = |id: u32| match tokenizer.map(|t| t.decode(&[id], false)) {
        Some(text) => format!("{text:?}"),
        None => "-".into(),
    };
    println!(
        "\n{:>4}  {:>7}  {:>7}  {:<20}  {:<20}  match",
        "pos", "ref_id", "mk_id", "ref_text", "mk_text"
    );
    for (position, row) in rows.iter().enumerate() {
        let verdict = match row.ours == row.reference {
            true => "✓".to_string(),
            false if verdict::is_near_tie(row, noise) => format!("near-tie ({:.3})", row.margin),
            false => format!("✗ ({:.3})", row.margin),
        };
        println!(
            "{position:>4}  {:>7}  {:>7}  {:<20}  {:<20}  {verdict}",
            row.reference,
            row.ours,
            text(row.reference),
            text(row.ours)
        );
    }
    println!();
}

fn report(gates: &[Gate]) -> Result<()> {
    for gate in gates {
        println!("{}  {}", if gate.passed { "pass" } else { "FAIL" }, gate.what);
    }
    let failed = gates.iter().filter(|gate| !gate.passed).count();
    if failed > 0 {
        println!("\nParity: FALSE ✗");
        bail!("{failed} of {} checks failed", gates.len());
    }
    println!("\nParity: TRUE ✓");
    Ok(())
}

/// Whether a reference folder holds for a checkpoint of speech.
#[cfg(test)]
pub fn check_speech(
    dir: &Path,
    folder: &Path,
    options: &mk_model::ModelOptions,
    runtime: Option<&Runtime>,
) -> Result<()> {
    report(&speech::compare(dir, folder, options, runtime)?)
}

/// Whether a reference file holds for a model; without the table.
#[cfg(test)]
pub fn check(model: &Model, reference: &Path, precision: Precision) -> Result<()> {
    let (gates, _, _) = compare(model, &Reference::open(reference)?, precision)?;
    report(&gates)
}
