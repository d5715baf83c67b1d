//! The candle peer: times candle's own Qwen3 on a Hugging Face checkpoint directory, on the CPU.
//! Prints one JSON object; `peers/README.md` gives its fields.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{bail, DType, Device, Error, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::qwen3::{Config, ModelForCausalLM};
use serde_json::{json, Value};

/// As pinned in Cargo.toml; the crate does not export its own version.
const CANDLE_VERSION: &str = "0.11.1";

struct Args {
    model: PathBuf,
    threads: usize,
    positions: Vec<usize>,
    prefill: Vec<usize>,
    /// Steps timed at each position.
    tokens: usize,
    repeats: usize,
    /// The weight types to measure; each row reported is the fastest one's.
    dtypes: Vec<String>,
    /// When not empty: print these ids' last logits, and time nothing.
    check: Vec<usize>,
}

impl Args {
    fn parse() -> Result<Self> {
        let mut args = Args {
            model: PathBuf::new(),
            threads: std::thread::available_parallelism()?.get(),
            positions: vec![0, 512, 2048],
            prefill: vec![64, 512],
            tokens: 16,
            repeats: 3,
            dtypes: vec!["f32".into(), "bf16".into()],
            check: vec![],
        };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let Some(value) = words.next() else { bail!("{flag} needs a value") };
            match flag.as_str() {
                "--model" => args.model = value.into(),
                "--threads" => args.threads = number(&value)?,
                "--positions" => args.positions = numbers(&value)?,
                "--prefill" => args.prefill = numbers(&value)?,
                "--tokens" => args.tokens = number(&value)?,
                "--repeats" => args.repeats = number(&value)?,
                "--dtypes" => args.dtypes = value.split(',').map(str::to_owned).collect(),
                "--check" => args.check = numbers(&value)?,
                _ => bail!("unknown flag {flag}"),
            }
        }
        if args.model.as_os_str().is_empty() {
            bail!("--model DIR is required");
        }
        Ok(args)
    }
}

fn number(text: &str) -> Result<usize> {
    text.parse().map_err(Error::wrap)
}

fn numbers(text: &str) -> Result<Vec<usize>> {
    text.split(',').filter(|word| !word.is_empty()).map(number).collect()
}

/// candle's `Config` asks for every field of a transformers 4 `config.json`; transformers 5 moved
/// the rope base and leaves some defaults out.
fn read_config(model: &Path) -> Result<Config> {
    let text = std::fs::read_to_string(model.join("config.json"))?;
    let mut config: Value = serde_json::from_str(&text).map_err(Error::wrap)?;
    if config["rope_theta"].is_null() {
        config["rope_theta"] = config["rope_parameters"]["rope_theta"].clone();
    }
    for (field, default) in [
        ("attention_bias", json!(false)),
        ("use_sliding_window", json!(false)),
        ("max_window_layers", json!(0)),
        ("tie_word_embeddings", json!(false)),
    ] {
        if config[field].is_null() {
            config[field] = default;
        }
    }
    serde_json::from_value(config).map_err(Error::wrap)
}

struct Runner {
    model: ModelForCausalLM,
    vocab: usize,
}

impl Runner {
    fn load(path: &Path, dtype: DType) -> Result<Self> {
        let mut shards = vec![];
        for entry in std::fs::read_dir(path)? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "safetensors") {
                shards.push(file);
            }
        }
        let config = read_config(path)?;
        // SAFETY: the checkpoint is a file of ours that nothing rewrites while the benchmark runs.
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&shards, dtype, &Device::Cpu)? };
        Ok(Runner { vocab: config.vocab_size, model: ModelForCausalLM::new(&config, weights)? })
    }

    /// An arbitrary valid id, the same in every peer.
    fn token(&self, position: usize) -> u32 {
        ((position * 7919 + 13) % self.vocab) as u32
    }

    /// Runs the tokens at `start..end` in one call; the logits after the last of them, as the f32
    /// values that candle's own sampler would take them to.
    fn feed(&mut self, start: usize, end: usize) -> Result<Vec<f32>> {
        let ids = (start..end).map(|position| self.token(position)).collect();
        self.feed_ids(ids, start)
    }

    fn feed_ids(&mut self, ids: Vec<u32>, start: usize) -> Result<Vec<f32>> {
        let input = Tensor::from_vec(ids.clone(), (1, ids.len()), &Device::Cpu)?;
        let logits = self.model.forward(&input, start)?;
        logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
    }

    /// Median time of a single-token step that finds `position` tokens in the cache.
    fn decode_ms(&mut self, position: usize, steps: usize, repeats: usize) -> Result<f64> {
        self.model.clear_kv_cache();
        if position > 0 {
            self.feed(0, position)?;
        }
        // The cache cannot be cut back, so each repeat starts from a copy of the filled model,
        // which is cheap: tensors are shared until appended to.
        let filled = self.model.clone();
        let mut medians = vec![];
        for _ in 0..repeats {
            self.model = filled.clone();
            let mut times = vec![];
            for at in position..position + steps {
                times.push(timed_ms(|| self.feed(at, at + 1))?);
            }
            medians.push(median(times));
        }
        Ok(median(medians))
    }

    /// Median time of a prompt of `tokens` from an empty cache.
    fn prefill_ms(&mut self, tokens: usize, repeats: usize) -> Result<f64> {
        let mut times = vec![];
        for _ in 0..repeats {
            self.model.clear_kv_cache();
            times.push(timed_ms(|| self.feed(0, tokens))?);
        }
        Ok(median(times))
    }
}

fn timed_ms<T>(run: impl FnOnce() -> Result<T>) -> Result<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}

/// To three decimals: the clock supports no more.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn dtype(name: &str) -> Result<DType> {
    name.parse().map_err(Error::wrap)
}

/// All rows asked for, with the weights held as `name`.
fn measure(args: &Args, name: &str) -> Result<Value> {
    let mut runner = Runner::load(&args.model, dtype(name)?)?;
    runner.feed(0, 8)?; // pages the weights in
    let (mut decode, mut prefill) = (vec![], vec![]);
    for &position in &args.positions {
        let ms = runner.decode_ms(position, args.tokens, args.repeats)?;
        decode.push(json!({
            "position": position,
            "tok_s": rounded(1e3 / ms),
            "ms_per_tok": rounded(ms),
            "dtype": name,
        }));
    }
    for &tokens in &args.prefill {
        let ms = runner.prefill_ms(tokens, args.repeats)?;
        prefill.push(json!({
            "tokens": tokens,
            "tok_s": rounded(tokens as f64 * 1e3 / ms),
            "ms": rounded(ms),
            "dtype": name,
        }));
    }
    Ok(json!({"dtype": name, "decode": decode, "prefill": prefill}))
}

/// Row by row the best of the variants, so that no setting is held against the peer.
fn fastest<'a>(variants: &'a [Value], kind: &str, rows: usize) -> Vec<&'a Value> {
    let rate = |row: &&Value| row["tok_s"].as_f64().unwrap_or(0.0);
    (0..rows)
        .filter_map(|row| {
            let candidates = variants.iter().map(|variant| &variant[kind][row]);
            candidates.max_by(|a, b| rate(a).total_cmp(&rate(b)))
        })
        .collect()
}

fn check(args: &Args) -> Result<Value> {
    let mut runner = Runner::load(&args.model, dtype(&args.dtypes[0])?)?;
    let ids = args.check.iter().map(|&id| id as u32).collect();
    let logits = runner.feed_ids(ids, 0)?;
    let argmax = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    Ok(json!({"ids": args.check, "argmax": argmax, "logits": logits[..8]}))
}

fn report(args: &Args) -> Result<Value> {
    let mut variants = vec![];
    for name in &args.dtypes {
        variants.push(measure(args, name)?);
    }
    let decode = fastest(&variants, "decode", args.positions.len());
    let prefill = fastest(&variants, "prefill", args.prefill.len());
    let mut used: Vec<_> =
        decode.iter().chain(&prefill).filter_map(|row| row["dtype"].as_str()).collect();
    used.sort_unstable();
    used.dedup();
    Ok(json!({
        "peer": "candle",
        "version": CANDLE_VERSION,
        "dtype": used.join("+"),
        "threads": args.threads,
        "decode": decode,
        "prefill": prefill,
        "notes": "each row is the fastest of the weight types measured (those of variants); \
                  KV cache in the weights' type; candle multiplies bf16 on the CPU by widening \
                  both sides to f32 at every call",
        "variants": variants,
    }))
}

fn main() -> Result<()> {
    let args = Args::parse()?;
    // candle and rayon both read their thread count from here, on first use.
    std::env::set_var("RAYON_NUM_THREADS", args.threads.to_string());
    let output = if args.check.is_empty() { report(&args)? } else { check(&args)? };
    println!("{output}");
    Ok(())
}
