//! `cargo xtask bench`: how fast, against what the machine allows and against others.

mod load;
mod memory;
mod ours;
mod peers;
mod report;
mod speech;
#[cfg(feature = "cuda")]
mod table;

use anyhow::{Result, ensure};
use mk_model::{Checkpoint, Precision, Sampling};

use mk_examples::{BackendArg, LoadArgs, SpeechArgs, locate, locate_speech, repo_root};
use report::{Engine, Report};

use crate::parity::is_speech;

/// Measure decode and prefill, against the memory's speed and against peers; or speech, stage by stage.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint directory or hub id (owner/name)
    #[arg(long, required_unless_present = "table")]
    model: Option<String>,
    /// Print, row by row, what the CUDA kernels are to reach and what they do, on random checkpoints of the shapes of
    /// Qwen3-0.6B and 1.7B that are made for it
    #[arg(long, conflicts_with = "model")]
    table: bool,
    #[command(flatten)]
    load: SpeechArgs,
    /// Positions to decode at, ascending
    #[arg(long, value_delimiter = ',', default_value = "0,512,2048,8192")]
    positions: Vec<usize>,
    /// Prompt lengths to run
    #[arg(long, value_delimiter = ',', default_value = "64,512")]
    prefill: Vec<usize>,
    /// Tokens to decode at each position
    #[arg(long, default_value_t = 16)]
    tokens: usize,
    /// Runs of each prompt
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Rounds over all engines, each loaded anew; medians are reported. Machines drift: several rounds keep the
    /// comparison fair
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Decode with temperature 0.9, top-k 50, top-p 0.95 and a repetition penalty of 1.05, not greedily
    #[arg(long)]
    sampled: bool,
    /// Frames of speech to make
    #[arg(long, default_value_t = 24)]
    frames: usize,
    /// Frames that the codec decodes at once
    #[arg(long, default_value_t = 4)]
    chunk_frames: usize,
    /// Leave the peers out
    #[arg(long)]
    no_peers: bool,
    /// Print JSON rather than tables
    #[arg(long)]
    json: bool,
}

/// What `--sampled` means.
const SAMPLED: Sampling = Sampling {
    temperature: 0.9,
    top_k: 50,
    top_p: 0.95,
    min_p: 0.0,
    repetition_penalty: 1.05,
    suppress: Vec::new(),
    seed: 0,
};

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.positions.is_sorted(), "--positions must be ascending");
    ensure!(args.tokens > 0 && args.repeats > 0 && args.rounds > 0, "nothing to measure");
    let Some(name) = &args.model else { return table(args) };
    let dir = locate(name)?;
    if is_speech(&dir) {
        return speech::run(args, name, &locate_speech(name)?);
    }
    let checkpoint = Checkpoint::open(&dir)?;
    let config = checkpoint.config();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.load.load.threads.unwrap_or(cores);
    let precision = args.load.load.precision();
    let kv_width = if precision == Precision::Bf16 { 2 } else { 4 };

    let sampling = if args.sampled { SAMPLED } else { Sampling::default() };

    let mut bandwidths = Vec::new();
    let mut rounds: Vec<Vec<Engine>> = Vec::new();
    let mut own_memory = None;
    let before = load::CpuTime::now();
    for _ in 0..args.rounds {
        bandwidths.push(read_bandwidth(&args.load.load, threads)?);
        let model = args.load.load.load(&checkpoint)?;
        let mut engines = vec![Engine {
            peer: "mk".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            dtype: precision.to_string(),
            notes: model.describe(),
            prefill: ours::prefill(&model, &args.prefill, args.repeats)?,
            decode: ours::decode(&model, &args.positions, args.tokens, &sampling)?,
        }];
        own_memory = own_memory.max(anonymous_memory());
        drop(model);
        if !args.no_peers {
            let plan = peers::Plan {
                model: &dir,
                threads,
                positions: &args.positions,
                prefill: &args.prefill,
                tokens: args.tokens,
                repeats: args.repeats,
            };
            engines.extend(peers::run(&repo_root()?, &plan));
        }
        rounds.push(engines);
    }

    let after = load::CpuTime::now();

    let report = Report {
        model: name.clone(),
        threads,
        read_bandwidth: ours::median(&mut bandwidths),
        weight_bytes: weight_bytes(&checkpoint),
        kv_bytes_per_position: (2 * kv_width * config.num_hidden_layers * config.kv_size()) as u64,
        own_memory_bytes: own_memory,
        used_by_others: before.zip(after).map(|(before, after)| after.others_since(&before)),
        engines: medians(rounds),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

/// What `--table` asks for.
fn table(args: &Args) -> Result<()> {
    ensure!(args.load.load.backend == BackendArg::Cuda, "--table is of --backend cuda");
    #[cfg(feature = "cuda")]
    return table::run(args);
    #[cfg(not(feature = "cuda"))]
    anyhow::bail!("this program was built without the feature `cuda`")
}

/// Of the memory that the backend works in.
fn read_bandwidth(load: &LoadArgs, threads: usize) -> Result<f64> {
    match load.backend {
        BackendArg::Cpu => Ok(memory::read_bandwidth(threads)),
        #[cfg(feature = "cuda")]
        BackendArg::Cuda => Ok(mk_model::backend::cuda::read_bandwidth(0)?),
        #[cfg(not(feature = "cuda"))]
        BackendArg::Cuda => anyhow::bail!("this program was built without the feature `cuda`"),
    }
}

/// Bytes of the matrices that every token reads: all layers and the head, as stored.
fn weight_bytes(checkpoint: &Checkpoint) -> u64 {
    let head = "lm_head.weight";
    let tied = checkpoint.tensors().get(head).is_none()
        || checkpoint.config().tie_word_embeddings == Some(true);
    let embedding = "model.embed_tokens.weight";
    let read = |name: &str| if tied { name != head } else { name != embedding };
    checkpoint
        .tensors()
        .iter()
        .filter(|t| t.shape().len() == 2 && read(t.name()))
        .map(|t| t.bytes().len() as u64)
        .sum()
}

/// The engines with each figure's median over the rounds.
fn medians(rounds: Vec<Vec<Engine>>) -> Vec<Engine> {
    let mut merged = rounds[0].clone();
    for engine in &mut merged {
        let same: Vec<&Engine> =
            rounds.iter().filter_map(|r| r.iter().find(|e| e.peer == engine.peer)).collect();
        for (i, row) in engine.decode.iter_mut().enumerate() {
            let mut ms: Vec<f64> = same.iter().map(|e| e.decode[i].ms_per_tok).collect();
            row.ms_per_tok = ours::median(&mut ms);
            row.tok_s = 1e3 / row.ms_per_tok;
        }
        for (i, row) in engine.prefill.iter_mut().enumerate() {
            let mut ms: Vec<f64> = same.iter().map(|e| e.prefill[i].ms).collect();
            row.ms = ours::median(&mut ms);
            row.tok_s = 1e3 * row.tokens as f64 / row.ms;
        }
    }
    merged
}

/// Resident memory of this process that no file backs, in bytes, where the system tells (Linux).
fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
