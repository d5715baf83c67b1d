//! Speech: how long each stage of a frame takes, and the whole beside qwen_tts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mk_examples::repo_root;
use mk_tts::config::ModelType;
use mk_tts::guard::GuardOptions;
use mk_tts::talker::{Frames, TextFeed, TextLayout};
use mk_tts::text::prepare;
use mk_tts::{SpeakOptions, Tts, Voice};
use serde::{Deserialize, Serialize};

use super::load::CpuTime;
use super::ours::median;
use super::{Args, memory};
use crate::parity::python;

const TEXT: &str = "The quick brown fox jumps over the lazy dog, and then it goes home to sleep until the \
                    sun comes up again in the morning.";
const LANGUAGE: &str = "english";

/// Everything one run found. Times of stages are milliseconds a frame.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    on: String,
    threads: usize,
    frames: usize,
    chunk_frames: usize,
    read_bandwidth: f64,
    /// Share of the processors that other programs used meanwhile.
    used_by_others: Option<f64>,
    talker_ms: f64,
    predictor_ms: f64,
    codec_ms: f64,
    /// Of the first frame alone.
    first_codec_ms: f64,
    /// Seconds that a second of speech takes, as a user of [`Tts::speak`] sees it.
    rtf: f64,
    /// From the call to the first chunk of one frame, the voice being warm.
    first_chunk_ms: f64,
    reference: Vec<Reference>,
}

/// What `xtask/reference/speech_bench.py` prints.
#[derive(Debug, Serialize, Deserialize)]
struct Reference {
    version: String,
    dtype: String,
    rtf: f64,
    codes_rtf: f64,
    codec_rtf: f64,
    seconds: f64,
}

pub fn run(args: &Args, name: &str, dir: &Path) -> Result<()> {
    ensure!(args.frames > 1 && args.repeats > 0, "nothing to measure");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.load.load.threads.unwrap_or(cores);
    let before = CpuTime::now();
    let read_bandwidth = memory::read_bandwidth(threads);
    let tts = args.load.load(dir)?;
    let voice = voice_of(&tts)?;
    tts.warm_up(&voice, LANGUAGE, TextLayout::Streaming)?;
    let frame_ms = 1e3 * tts.samples_per_frame() as f64 / f64::from(tts.sample_rate());

    let (mut rtf, mut first_chunk_ms) = (Vec::new(), Vec::new());
    let mut stages = Stages::default();
    for seed in 0..args.repeats as u64 {
        let (whole, first) = speak(&tts, &voice, args, seed)?;
        rtf.push(whole);
        first_chunk_ms.push(first);
        stages.measure(&tts, &voice, args, seed)?;
    }
    let on = tts.describe();
    drop(tts);
    let reference = if args.no_peers { Vec::new() } else { references(args, dir, threads) };
    let after = CpuTime::now();
    let report = Report {
        model: name.into(),
        on,
        threads,
        frames: args.frames,
        chunk_frames: args.chunk_frames,
        read_bandwidth,
        used_by_others: before.zip(after).map(|(before, after)| after.others_since(&before)),
        talker_ms: median(&mut stages.talker),
        predictor_ms: median(&mut stages.predictor),
        codec_ms: median(&mut stages.codec),
        first_codec_ms: median(&mut stages.first_codec),
        rtf: median(&mut rtf),
        first_chunk_ms: median(&mut first_chunk_ms),
        reference,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print(frame_ms);
    }
    Ok(())
}

/// A voice that the model has without being given anything.
fn voice_of(tts: &Tts) -> Result<Voice> {
    match tts.config().model_type {
        ModelType::VoiceDesign => Ok(tts.design_voice("a calm voice")?),
        _ => {
            let name = tts
                .voices()
                .next()
                .context("speech is measured with a voice of the model's own")?;
            Ok(tts.voice(name)?)
        }
    }
}

/// Seconds a second of speech takes, and milliseconds to the first chunk.
fn speak(tts: &Tts, voice: &Voice, args: &Args, seed: u64) -> Result<(f64, f64)> {
    let options = SpeakOptions {
        language: LANGUAGE.into(),
        layout: Some(TextLayout::Streaming),
        chunk_frames: args.chunk_frames,
        guard: GuardOptions { max_frames: Some(args.frames), ..GuardOptions::none() },
        seed,
        ..SpeakOptions::default()
    };
    let started = Instant::now();
    let mut first = None;
    let mut samples = 0;
    for chunk in tts.speak(TEXT, voice, &options)? {
        samples += chunk?.samples.len();
        first.get_or_insert(started.elapsed());
    }
    let seconds = samples as f64 / f64::from(tts.sample_rate());
    let first = first.context("the model said nothing")?;
    Ok((started.elapsed().as_secs_f64() / seconds, first.as_secs_f64() * 1e3))
}

/// Milliseconds a frame.
#[derive(Default)]
struct Stages {
    talker: Vec<f64>,
    predictor: Vec<f64>,
    codec: Vec<f64>,
    first_codec: Vec<f64>,
}

impl Stages {
    /// The loop of a speech, with a clock between its parts.
    fn measure(&mut self, tts: &Tts, voice: &Voice, args: &Args, seed: u64) -> Result<()> {
        let talker = tts.talker();
        let spec = tts.prompt_spec(voice, LANGUAGE, TextLayout::Streaming)?;
        let tokens = prepare(tts.tokenizer(), TEXT, usize::MAX)?.remove(0).tokens;
        let mut feed = TextFeed::of(tokens);
        let opening = talker.opening(&spec, &mut feed)?;
        let sampling = tts.sampling().clone().with_seed(seed);
        let sequence = tts.prefix(voice, &spec)?;
        let mut frames = Frames::begin(talker, sequence, &opening, &sampling)?;
        let mut stream = tts.codec().new_stream();
        let mut codes = Vec::new();
        for number in 0..args.frames {
            let started = Instant::now();
            let Some(frame) = frames.next_frame()? else { break };
            self.predictor.push(started.elapsed().as_secs_f64() * 1e3);
            codes.extend_from_slice(&frame);
            let made = codes.len() / frame.len();
            if number == 0 || made == args.chunk_frames.max(1) {
                let started = Instant::now();
                stream.decode(&codes)?;
                let list = if number == 0 { &mut self.first_codec } else { &mut self.codec };
                list.push(started.elapsed().as_secs_f64() * 1e3 / made as f64);
                codes.clear();
            }
            let started = Instant::now();
            frames.feed(&frame, feed.next_id(tts.config())?)?;
            self.talker.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    }
}

/// qwen_tts on the same checkpoint, where it is installed; what could not be measured is said.
fn references(args: &Args, dir: &Path, threads: usize) -> Vec<Reference> {
    let measure = |dtype: &str| -> Result<Reference> {
        let repo = repo_root()?;
        let output = Command::new(python::find_speech_python(&repo)?)
            .arg(repo.join("xtask/reference/speech_bench.py"))
            .arg("--model")
            .arg(dir)
            .args(["--text", TEXT, "--dtype", dtype])
            .args(["--frames", &args.frames.to_string()])
            .args(["--threads", &threads.to_string()])
            .args(["--repeats", &args.repeats.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "it ended with {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().rev().find(|line| line.starts_with('{'));
        Ok(serde_json::from_str(line.context("it printed no JSON")?)?)
    };
    let mut all = Vec::new();
    for dtype in ["bfloat16", "float32"] {
        match measure(dtype) {
            Ok(reference) => all.push(reference),
            Err(error) => eprintln!("qwen_tts could not be measured in {dtype}: {error:#}"),
        }
    }
    all
}

impl Report {
    fn print(&self, frame_ms: f64) {
        println!("model            {}", self.model);
        println!("runs on          {}", self.on);
        println!("threads          {}", self.threads);
        println!("memory read      {:.2} GB/s, measured in this run", self.read_bandwidth / 1e9);
        if let Some(share) = self.used_by_others {
            println!("used by others   {:.0}% of the processors, meanwhile", 100.0 * share);
        }
        println!("speech           {} frames, {} a chunk", self.frames, self.chunk_frames);
        println!("first chunk      {:.0} ms after the call", self.first_chunk_ms);
        println!("\n| stage | ms a frame | RTF |\n|---|---|---|");
        for (stage, ms) in [
            ("talker", self.talker_ms),
            ("code predictor", self.predictor_ms),
            ("codec", self.codec_ms),
            ("codec, first frame alone", self.first_codec_ms),
        ] {
            println!("| {stage} | {ms:.1} | {:.3} |", ms / frame_ms);
        }
        println!("\n| engine | codes RTF | codec RTF | whole RTF | mk is faster by |");
        println!("|---|---|---|---|---|");
        let codes = (self.talker_ms + self.predictor_ms) / frame_ms;
        println!("| mk | {codes:.3} | {:.3} | {:.3} | |", self.codec_ms / frame_ms, self.rtf);
        for Reference { version, dtype, rtf, codes_rtf, codec_rtf, .. } in &self.reference {
            println!(
                "| {version}, {dtype} | {codes_rtf:.3} | {codec_rtf:.3} | {rtf:.3} | {:.2}x |",
                rtf / self.rtf
            );
        }
    }
}
