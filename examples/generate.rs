//! Text from a Qwen3, streamed.
//!
//! `cargo run --release --example generate -- --model Qwen/Qwen3-0.6B "The capital of France is"`

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use mk_examples::{LoadArgs, locate, synthetic_model};
use mk_model::generate::{Generated, TextOptions, generate};
use mk_model::text::{ChatTemplate, Message, Tokenizer};
use mk_model::{Checkpoint, DecodeOptions, Finish, Sampling};
use serde_json::json;

/// Make text with a Qwen3.
#[derive(Debug, Parser)]
struct Args {
    /// What to go on from
    #[arg(default_value = "The capital of France is")]
    prompt: String,
    /// Checkpoint directory or hub id (owner/name); a small random one is made if not given
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
    /// Put the prompt as a user's message, by the model's own chat template
    #[arg(long)]
    chat: bool,
    /// A system message before it
    #[arg(long, requires = "chat")]
    system: Option<String>,
    /// Whether the model thinks before it answers
    #[arg(long, requires = "chat", default_value_t = true, action = clap::ArgAction::Set)]
    thinking: bool,
    /// Tokens to make at most
    #[arg(long, default_value_t = 128)]
    max_tokens: usize,
    /// 0 takes the most likely token each time; the checkpoint's own settings hold for what is not given
    #[arg(long)]
    temperature: Option<f32>,
    /// Sample among the k most likely tokens; 0 for all
    #[arg(long)]
    top_k: Option<usize>,
    /// Sample among the smallest set of tokens that has this probability
    #[arg(long)]
    top_p: Option<f32>,
    /// Leave out tokens below this share of the most likely one's probability
    #[arg(long)]
    min_p: Option<f32>,
    /// Above 1, makes tokens that were there before less likely
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// Token ids that are never made
    #[arg(long, value_delimiter = ',')]
    suppress: Vec<u32>,
    /// The same seed makes the same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End at this text; may be given several times
    #[arg(long)]
    stop: Vec<String>,
    /// Print token ids, text and timings as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    let checkpoint = Checkpoint::open(model_dir(&args)?)?;
    let tokenizer = Tokenizer::from_dir(checkpoint.dir())?;
    tokenizer.check_fits(checkpoint.config())?;
    let model = args.load.load(&checkpoint)?;
    let load = started.elapsed();
    eprintln!("{}: {}", checkpoint.dir().display(), model.describe());

    let prompt = prompt_ids(&args, &checkpoint, &tokenizer)?;
    ensure!(!prompt.is_empty(), "the prompt has no tokens");
    let mut sequence = model.sequence()?;
    sequence.set_prompt(&prompt)?;
    let options = TextOptions {
        sampling: sampling(&args, &checkpoint),
        decode: DecodeOptions { max_tokens: args.max_tokens, ..DecodeOptions::default() },
        stop: args.stop.clone(),
    };

    let mut out = std::io::stdout().lock();
    if !args.json && !args.chat {
        write!(out, "{}", args.prompt)?;
    }
    let started = Instant::now();
    let mut first = None;
    let made = generate(&mut sequence, &tokenizer, &options, |piece| {
        first.get_or_insert_with(|| started.elapsed());
        let shown = args.json || (write!(out, "{piece}").is_ok() && out.flush().is_ok());
        // Whoever read the text is gone (a closed pipe): there is nobody to make more of it for.
        if shown { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if made.finish == Finish::Cancelled {
        return Ok(());
    }
    let run = Timings {
        load,
        first: first.unwrap_or_else(|| started.elapsed()),
        total: started.elapsed(),
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report(&prompt, &made, &run))?)?;
    } else {
        writeln!(out)?;
        run.print(prompt.len(), made.ids.len());
    }
    Ok(())
}

fn model_dir(args: &Args) -> Result<PathBuf> {
    if let Some(model) = &args.model {
        return locate(model);
    }
    eprintln!(
        "no --model given: this is a small model of random weights, and what it says is noise"
    );
    synthetic_model()
}

fn prompt_ids(args: &Args, checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    if !args.chat {
        return Ok(tokenizer.encode(&args.prompt)?);
    }
    let system = args.system.iter().map(|text| Message::new("system", text));
    let messages: Vec<Message> = system.chain([Message::new("user", &args.prompt)]).collect();
    let template = ChatTemplate::from_dir(checkpoint.dir())?;
    let text = template.render(&messages, None, true, Some(args.thinking))?;
    Ok(tokenizer.encode(&text)?)
}

/// The checkpoint's settings, and what the flags change in them.
fn sampling(args: &Args, checkpoint: &Checkpoint) -> Sampling {
    let theirs = Sampling::from(checkpoint.generation());
    Sampling {
        temperature: args.temperature.unwrap_or(theirs.temperature),
        top_k: args.top_k.unwrap_or(theirs.top_k),
        top_p: args.top_p.unwrap_or(theirs.top_p),
        min_p: args.min_p.unwrap_or(theirs.min_p),
        repetition_penalty: args.repetition_penalty.unwrap_or(theirs.repetition_penalty),
        suppress: args.suppress.clone(),
        seed: args.seed,
    }
}

struct Timings {
    load: Duration,
    /// From the prompt to the first text.
    first: Duration,
    total: Duration,
}

impl Timings {
    fn tokens_per_second(&self, tokens: usize) -> f64 {
        tokens.saturating_sub(1) as f64 / (self.total - self.first).as_secs_f64().max(1e-9)
    }

    fn print(&self, prompt: usize, tokens: usize) {
        eprintln!(
            "loaded in {:.2?}; {prompt} tokens of prompt, first text after {:.2?}; {tokens} tokens at {:.1} tok/s",
            self.load,
            self.first,
            self.tokens_per_second(tokens)
        );
    }
}

fn report(prompt: &[u32], made: &Generated, run: &Timings) -> serde_json::Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let finish = match made.finish {
        Finish::Stop(_) => "stop",
        Finish::StopString => "stop_string",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Cancelled => "cancelled",
    };
    json!({
        "prompt_ids": prompt,
        "ids": made.ids,
        "text": made.text,
        "finish": finish,
        "load_ms": ms(run.load),
        "ttft_ms": ms(run.first),
        "total_ms": ms(run.total),
        "tok_s": run.tokens_per_second(made.ids.len()),
    })
}
