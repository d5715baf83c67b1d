//! `cargo xtask soak`: a long time at work. Nothing may hang, and nothing may change.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mk_examples::{LoadArgs, locate};
use mk_model::rng::uniform;
use mk_model::synth::Spec;
use mk_model::{Checkpoint, DecodeOptions, Finish, Model, Sampling, Sequence};

/// Decode for a long time, in short runs of several sequences at once, and compare every token with the first run's.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint directory or hub id (owner/name); a random one of two layers as wide as Qwen3-0.6B's if not given
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
    /// Tokens to make, at least
    #[arg(long, default_value_t = 1_000_000)]
    tokens: u64,
    /// Runs to make them in, at least; on a GPU each is a launch of its own
    #[arg(long, default_value_t = 100_000)]
    runs: u64,
    /// Sequences at once, each on a thread
    #[arg(long, default_value_t = 2)]
    sequences: u64,
    /// Seconds without a token that count as a hang
    #[arg(long, default_value_t = 60)]
    patience: u64,
}

/// The longest run: what one launch of a GPU makes.
const LONGEST: usize = 64;
/// Runs of a prompt before another takes its place in the cache.
const ROUNDS: u64 = 200;
/// Prompt lengths, from one that is handed in to one that is a prefill of its own.
const PROMPTS: [usize; 5] = [1, 3, 40, 300, 1100];
/// How often progress is printed.
const EVERY: Duration = Duration::from_secs(10);

/// What all sequences have made together.
#[derive(Default)]
struct Made {
    tokens: AtomicU64,
    runs: AtomicU64,
}

/// Runs the command; an error, and so a non-zero exit, for a hang, another token, or an error of the model.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.runs > 0 && args.tokens >= args.runs && args.sequences > 0, "nothing to do");
    let folder = tempfile::tempdir()?;
    let dir = match &args.model {
        Some(name) => locate(name)?,
        None => {
            let shape = Spec::preset("0.6b").context("no such shape")?;
            Spec { num_hidden_layers: 2, vocab_size: 8192, ..shape }.write(folder.path())?;
            folder.path().into()
        }
    };
    let model = args.load.load(&Checkpoint::open(dir)?)?;
    println!("runs on  {}", model.describe());
    let started = Instant::now();
    let made = soak(&model, args)?;
    let (tokens, runs) = made;
    println!(
        "{tokens} tokens in {runs} runs of {} sequences at once, {:.0} s: none hung, none changed",
        args.sequences,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Tokens and runs, when there are enough of both.
fn soak(model: &Model, args: &Args) -> Result<(u64, u64)> {
    let made = Arc::new(Made::default());
    let (report, reports) = mpsc::channel();
    for number in 0..args.sequences {
        let (model, made, report) = (model.clone(), Arc::clone(&made), report.clone());
        let goal = (args.tokens, args.runs);
        // Not waited for after a hang: the program ends with it.
        std::thread::spawn(move || {
            // Nobody listens any more where another sequence has failed.
            let _ = report.send(work(&model, number, goal, &made));
        });
    }
    drop(report);
    let mut left = args.sequences;
    let (mut before, mut since) = (0, Instant::now());
    while left > 0 {
        match reports.recv_timeout(EVERY.min(Duration::from_secs(args.patience))) {
            Ok(result) => {
                result?;
                left -= 1;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("a sequence panicked"),
        }
        let tokens = made.tokens.load(Ordering::Relaxed);
        if tokens > before {
            (before, since) = (tokens, Instant::now());
            println!("{tokens} tokens, {} runs", made.runs.load(Ordering::Relaxed));
        }
        ensure!(
            since.elapsed().as_secs() < args.patience,
            "no token for {} s, after {tokens}: it hangs",
            args.patience
        );
    }
    Ok((made.tokens.load(Ordering::Relaxed), made.runs.load(Ordering::Relaxed)))
}

/// One sequence, until all have made enough.
fn work(model: &Model, number: u64, (tokens, runs): (u64, u64), made: &Made) -> Result<()> {
    let mut sequence = model.sequence()?;
    let vocab = model.config().vocab_size;
    let prompts: Vec<(Vec<u32>, Sampling)> = PROMPTS
        .into_iter()
        .zip(samplings())
        .enumerate()
        .map(|(i, (length, sampling))| {
            let salt = number * PROMPTS.len() as u64 + i as u64;
            let id = |at: usize| (uniform(salt, at as u128) * vocab as f32) as u32;
            ((0..length).map(id).collect(), sampling)
        })
        .collect();
    let firsts = prompts
        .iter()
        .map(|(ids, sampling)| decode(&mut sequence, ids, sampling, LONGEST))
        .collect::<Result<Vec<_>>>()?;
    // Lengths from 1 to twice the mean less one, so that both goals are met at about the same time.
    let spread = (2 * tokens / runs - 1).min(LONGEST as u64);
    for round in 0_u64.. {
        let enough = |counter: &AtomicU64, goal| counter.load(Ordering::Relaxed) >= goal;
        if enough(&made.tokens, tokens) && enough(&made.runs, runs) {
            break;
        }
        let which = (round / ROUNDS) as usize % prompts.len();
        let (ids, sampling) = &prompts[which];
        let length = 1 + (uniform(number, u128::from(round)) * spread as f32) as usize;
        let found = decode(&mut sequence, ids, sampling, length)?;
        let expected = &firsts[which][..found.len()];
        if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
            bail!(
                "sequence {number}, run {round}, prompt of {} ids: token {at} is {}, was {}",
                ids.len(),
                found[at],
                expected[at]
            );
        }
        made.tokens.fetch_add(found.len() as u64, Ordering::Relaxed);
        made.runs.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// One for each prompt: all that a device samples by itself.
fn samplings() -> [Sampling; PROMPTS.len()] {
    let base = Sampling { temperature: 1.0, top_k: 50, seed: 7, ..Sampling::default() };
    [
        Sampling::default(),
        base.clone(),
        Sampling { repetition_penalty: 1.2, ..Sampling::default() },
        Sampling { top_p: 0.9, min_p: 0.01, repetition_penalty: 1.05, ..base },
        Sampling::default(),
    ]
}

fn decode(
    sequence: &mut Sequence,
    prompt: &[u32],
    sampling: &Sampling,
    length: usize,
) -> Result<Vec<u32>> {
    sequence.set_prompt(prompt)?;
    let options = DecodeOptions {
        max_tokens: length,
        stop_ids: Some(Vec::new()),
        ..DecodeOptions::default()
    };
    let mut tokens = Vec::with_capacity(length);
    let finish = sequence.decode(sampling, &options, |step| {
        tokens.push(step.token);
        ControlFlow::Continue(())
    })?;
    ensure!(finish == Finish::Length && tokens.len() == length, "a run ended early: {finish:?}");
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use mk_model::{Model, ModelOptions};

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn it_makes_at_least_what_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        Spec::tiny().write(folder.path()).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let model = Model::load(&checkpoint, &ModelOptions::default()).unwrap();
        let args = Program::parse_from(["soak", "--tokens", "300", "--runs", "60"]).args;
        let (tokens, runs) = soak(&model, &args).unwrap();
        assert!(tokens >= 300 && runs >= 60, "{tokens} {runs}");
    }
}
