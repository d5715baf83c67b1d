//! `cargo xtask bench --table`: what the CUDA kernels are to reach, and what they do.

use std::ops::ControlFlow;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use mk_model::backend::cuda::{Baseline, read_bandwidth};
use mk_model::synth::Spec;
use mk_model::{Checkpoint, DecodeOptions, Device, Input, Model, ModelOptions};
use mk_model::{Readout, Sampling, Sequence};

use super::{Args, SAMPLED, ours, weight_bytes};

/// Tokens of a run.
const TOKENS: usize = 128;
/// Positions at which runs begin.
const POSITIONS: [usize; 3] = [0, 2048, 8192];

/// What is to be reached, and what is.
struct Row {
    what: String,
    bar: String,
    aim: String,
    measured: String,
    /// Whether bar and aim are reached; nothing for rows without.
    reached: Option<[bool; 2]>,
}

/// Measures and prints everything.
pub fn run(args: &Args) -> Result<()> {
    let bandwidth = read_bandwidth(0)?;
    let mut rows = Vec::new();
    let small = Checkpoints::make("0.6b")?;
    let measured = Measured::of(&small.checkpoint, bandwidth, args.repeats)?;
    let mut decoding = Vec::new();
    for position in POSITIONS {
        let ms = measured.decode(position, &Sampling::default())?;
        let (bar, aim) = if position == 0 { (62.0, 80.0) } else { (60.0, 75.0) };
        rows.push(measured.floor_row("0.6B, greedy", position, ms, (bar, aim)));
        decoding.push(ms);
    }
    let clocks = clocks();
    rows.push(measured.sampled_row()?);
    let large = Checkpoints::make("1.7b")?;
    {
        let measured = Measured::of(&large.checkpoint, bandwidth, args.repeats)?;
        let ms = measured.decode(0, &Sampling::default())?;
        rows.push(measured.floor_row("1.7B, greedy", 0, ms, (65.0, 80.0)));
    }
    for (tokens, bar) in [(64, 2.0), (512, 8.0), (2048, 25.0)] {
        rows.push(measured.prefill_row(tokens, bar)?);
    }
    for (position, ms) in POSITIONS.into_iter().zip(decoding) {
        rows.extend(baseline_rows(&small.checkpoint, position, ms, args.repeats)?);
    }
    let driver = mk_sys::driver::probe()?;
    println!("mk               {}", env!("CARGO_PKG_VERSION"));
    println!("runs on          {}", measured.model.describe());
    println!("driver           serves CUDA {}", driver.version);
    println!("right after      {}", clocks.as_deref().unwrap_or("no nvidia-smi to ask"));
    println!("memory read      {:.0} GB/s, measured in this run", bandwidth / 1e9);
    println!("runs             {TOKENS} tokens, median of {}\n", args.repeats);
    print(&rows);
    Ok(())
}

/// A random checkpoint that is gone when this is.
struct Checkpoints {
    checkpoint: Checkpoint,
    _folder: tempfile::TempDir,
}

impl Checkpoints {
    fn make(shape: &str) -> Result<Self> {
        eprintln!("making a random checkpoint of the shape {shape}");
        let spec = Spec::preset(shape).context("no such shape")?;
        let folder = tempfile::tempdir()?;
        spec.write(folder.path())?;
        Ok(Self { checkpoint: Checkpoint::open(folder.path())?, _folder: folder })
    }
}

/// A model with what its floors are made of.
struct Measured {
    model: Model,
    repeats: usize,
    bandwidth: f64,
    weight_bytes: u64,
    position_bytes: u64,
}

impl Measured {
    fn of(checkpoint: &Checkpoint, bandwidth: f64, repeats: usize) -> Result<Self> {
        let options = ModelOptions { device: Device::Cuda(0), ..ModelOptions::default() };
        let config = checkpoint.config();
        Ok(Self {
            model: Model::load(checkpoint, &options)?,
            repeats,
            bandwidth,
            weight_bytes: weight_bytes(checkpoint),
            position_bytes: (4 * config.num_hidden_layers * config.kv_size()) as u64,
        })
    }

    /// Milliseconds of reading what a token in the middle of a run must read.
    fn floor(&self, position: usize) -> f64 {
        let bytes = self.weight_bytes + self.position_bytes * (position + TOKENS / 2) as u64;
        1e3 * bytes as f64 / self.bandwidth
    }

    /// Milliseconds a token of a run at a position, as they arrive here: its mean, of several runs the median.
    fn decode(&self, position: usize, sampling: &Sampling) -> Result<f64> {
        let mut sequence = self.at(position)?;
        let mut means = Vec::new();
        // The first run is not counted.
        for _ in 0..=self.repeats {
            sequence.truncate(position);
            sequence.push(&[1])?;
            let options = DecodeOptions {
                max_tokens: TOKENS + 1,
                stop_ids: Some(Vec::new()),
                ..DecodeOptions::default()
            };
            let mut arrivals = Vec::new();
            sequence.decode(sampling, &options, |_| {
                arrivals.push(Instant::now());
                ControlFlow::Continue(())
            })?;
            means.push(mean_ms(&arrivals));
        }
        Ok(ours::median(&mut means[1..]))
    }

    fn at(&self, position: usize) -> Result<Sequence> {
        let mut sequence = self.model.sequence()?;
        if position > 0 {
            let ids = ours::ids(position, self.model.config().vocab_size);
            sequence.extend(Input::Tokens(&ids), Readout::NOTHING)?;
        }
        Ok(sequence)
    }

    fn floor_row(&self, what: &str, position: usize, ms: f64, (bar, aim): (f64, f64)) -> Row {
        let floor = self.floor(position);
        let share = 100.0 * floor / ms;
        Row {
            what: format!("decode, {what}, positions {position}-{}", position + TOKENS - 1),
            bar: format!("{bar:.0}% of the floor"),
            aim: format!("{aim:.0}%"),
            measured: format!(
                "{share:.1}%: {:.0} tok/s, {:.1} µs of which the floor is {:.1}",
                1e3 / ms,
                1e3 * ms,
                1e3 * floor
            ),
            reached: Some([share >= bar, share >= aim]),
        }
    }

    /// Greedy and sampled in turn, since clocks drift.
    fn sampled_row(&self) -> Result<Row> {
        let mut slower = Vec::new();
        for _ in 0..3 {
            let greedy = self.decode(0, &Sampling::default())?;
            slower.push(100.0 * (self.decode(0, &SAMPLED)? / greedy - 1.0));
        }
        let slower = ours::median(&mut slower);
        Ok(Row {
            what: "0.6B, sampled (temperature 0.9, top-k 50, top-p 0.95, penalty 1.05)".into(),
            bar: "5% slower than greedy".into(),
            aim: "2%".into(),
            measured: format!("{slower:.1}% slower"),
            reached: Some([slower <= 5.0, slower <= 2.0]),
        })
    }

    /// A prompt from an empty cache until its first token is here.
    fn prefill_row(&self, tokens: usize, bar: f64) -> Result<Row> {
        let ids = ours::ids(tokens, self.model.config().vocab_size);
        let mut sequence = self.model.sequence()?;
        let (mut filled, mut first) = (Vec::new(), Vec::new());
        for _ in 0..=self.repeats {
            sequence.reset();
            let start = Instant::now();
            sequence.extend(Input::Tokens(&ids), Readout::NOTHING)?;
            filled.push(start.elapsed().as_secs_f64() * 1e3);
            sequence.reset();
            let start = Instant::now();
            sequence.push(&ids)?;
            let options = DecodeOptions { max_tokens: 1, ..DecodeOptions::default() };
            sequence.decode(&Sampling::default(), &options, |_| ControlFlow::Continue(()))?;
            first.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let [filled, first] = [filled, first].map(|mut ms| ours::median(&mut ms[1..]));
        Ok(Row {
            what: format!("prefill, 0.6B, {tokens} tokens"),
            bar: format!("{bar} ms"),
            aim: format!("{} ms", bar / 2.0),
            measured: format!("{first:.2} ms to the first token; {filled:.2} ms to fill the cache"),
            reached: Some([first <= bar, first <= bar / 2.0]),
        })
    }
}

/// One kernel an operation, replayed by a CUDA graph: plain, and with kernels that overlap.
fn baseline_rows(
    checkpoint: &Checkpoint,
    position: usize,
    ours_ms: f64,
    repeats: usize,
) -> Result<Vec<Row>> {
    let mut baseline = Baseline::load(checkpoint, 0, position + TOKENS + 1)?;
    if position > 0 {
        let prompt = ours::ids(position, checkpoint.config().vocab_size);
        baseline.run(&prompt, 1, &mut |_| ())?;
    }
    let mut rows = Vec::new();
    for overlapping in [false, true] {
        baseline.set_overlapping(overlapping);
        let mut means = Vec::new();
        for _ in 0..=repeats {
            baseline.truncate(position);
            let mut arrivals = Vec::new();
            baseline.run(&[1], TOKENS + 1, &mut |_| arrivals.push(Instant::now()))?;
            means.push(mean_ms(&arrivals));
        }
        let ms = ours::median(&mut means[1..]);
        let faster = ms / ours_ms;
        let how = if overlapping { ", overlapping" } else { "" };
        rows.push(Row {
            what: format!("0.6B, a kernel an operation in a CUDA graph{how}, at {position}"),
            bar: if position == 0 { "beaten 1.3x".into() } else { String::new() },
            aim: String::new(),
            measured: format!("{faster:.2}x: it does {:.0} tok/s, {:.1} µs", 1e3 / ms, 1e3 * ms),
            reached: (position == 0).then_some([faster >= 1.3; 2]),
        });
    }
    Ok(rows)
}

fn mean_ms(arrivals: &[Instant]) -> f64 {
    match arrivals {
        [first, .., last] => {
            1e3 * last.duration_since(*first).as_secs_f64() / (arrivals.len() - 1) as f64
        }
        _ => f64::NAN,
    }
}

/// Clocks and the like, while they are still what they were.
fn clocks() -> Option<String> {
    let fields = "name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw";
    let output = Command::new("nvidia-smi")
        .args([&format!("--query-gpu={fields}"), "--format=csv,noheader"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty())
        .then(|| format!("{text} (driver, SM clock, memory clock, temperature, power)"))
}

fn print(rows: &[Row]) {
    println!("| what | bar | aim | measured | bar, aim |\n|---|---|---|---|---|");
    for Row { what, bar, aim, measured, reached } in rows {
        let mark = |reached| if reached { "✓" } else { "✗" };
        let reached = match reached {
            Some([bar, aim]) => format!("{} {}", mark(*bar), mark(*aim)),
            None => String::new(),
        };
        println!("| {what} | {bar} | {aim} | {measured} | {reached} |");
    }
}
