//! `cargo xtask synth`: a random checkpoint to try things with.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use mk_model::Dtype;
use mk_model::synth::{RopeLayout, Spec};
use mk_tts::config::ModelType;
use mk_tts::synth::Spec as TtsSpec;

/// Write a random checkpoint in the Hugging Face layout, from a seed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write
    out: PathBuf,
    /// Shape to begin with: tiny, 0.6b or 1.7b; also 4b, and for speech wide or odd
    #[arg(long, default_value = "tiny")]
    shape: String,
    /// What the weights are drawn from; that of the shape if not given
    #[arg(long)]
    seed: Option<u64>,
    /// How the weights are stored
    #[arg(long, value_enum, default_value_t = Stored::Bf16)]
    dtype: Stored,
    /// Write a Qwen3-TTS of this type rather than a Qwen3
    #[arg(long, value_enum)]
    tts: Option<Type>,
    /// How much larger than the others the row of the id that ends speech is: at 5 about one frame in four ends it
    #[arg(long, requires = "tts")]
    eos_gain: Option<f32>,
    #[command(flatten)]
    qwen3: Qwen3Args,
}

/// What only a Qwen3 may be given.
#[derive(Debug, clap::Args)]
#[group(multiple = true, conflicts_with = "tts")]
struct Qwen3Args {
    /// Give the model a head of its own, apart from the embedding
    #[arg(long)]
    untied: bool,
    /// Split the weights into files of at most so many bytes
    #[arg(long)]
    shard_bytes: Option<u64>,
    /// Base of the rotary frequencies
    #[arg(long)]
    rope_theta: Option<f32>,
    /// Write the base as transformers 4 does, at the top, or as transformers 5 does, in `rope_parameters`
    #[arg(long, value_enum, default_value_t = Writer::Transformers4)]
    rope_layout: Writer,
    #[arg(long)]
    hidden: Option<usize>,
    #[arg(long)]
    intermediate: Option<usize>,
    #[arg(long)]
    layers: Option<usize>,
    #[arg(long)]
    heads: Option<usize>,
    #[arg(long)]
    kv_heads: Option<usize>,
    #[arg(long)]
    head_dim: Option<usize>,
    #[arg(long)]
    vocab: Option<usize>,
    #[arg(long)]
    max_positions: Option<usize>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stored {
    Bf16,
    F16,
    F32,
}

impl From<Stored> for Dtype {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Bf16 => Self::Bf16,
            Stored::F16 => Self::F16,
            Stored::F32 => Self::F32,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Type {
    Base,
    CustomVoice,
    VoiceDesign,
}

impl From<Type> for ModelType {
    fn from(name: Type) -> Self {
        match name {
            Type::Base => Self::Base,
            Type::CustomVoice => Self::CustomVoice,
            Type::VoiceDesign => Self::VoiceDesign,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Writer {
    Transformers4,
    Transformers5,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    match args.tts {
        Some(name) => speech(args, name.into())?.write(&args.out)?,
        None => text(args)?.write(&args.out)?,
    }
    println!("{}", args.out.display());
    Ok(())
}

fn speech(args: &Args, model_type: ModelType) -> Result<TtsSpec> {
    let preset = TtsSpec::preset(&args.shape, model_type)
        .with_context(|| format!("no shape {}: there are {:?}", args.shape, TtsSpec::PRESETS))?;
    Ok(TtsSpec {
        dtype: args.dtype.into(),
        eos_gain: args.eos_gain.unwrap_or(preset.eos_gain),
        seed: args.seed.unwrap_or(preset.seed),
        ..preset
    })
}

fn text(args: &Args) -> Result<Spec> {
    let preset = Spec::preset(&args.shape)
        .with_context(|| format!("no shape {}: there are {:?}", args.shape, Spec::PRESETS))?;
    let own = &args.qwen3;
    Ok(Spec {
        hidden_size: own.hidden.unwrap_or(preset.hidden_size),
        intermediate_size: own.intermediate.unwrap_or(preset.intermediate_size),
        num_hidden_layers: own.layers.unwrap_or(preset.num_hidden_layers),
        num_attention_heads: own.heads.unwrap_or(preset.num_attention_heads),
        num_key_value_heads: own.kv_heads.unwrap_or(preset.num_key_value_heads),
        head_dim: own.head_dim.unwrap_or(preset.head_dim),
        vocab_size: own.vocab.unwrap_or(preset.vocab_size),
        max_position_embeddings: own.max_positions.unwrap_or(preset.max_position_embeddings),
        rope_theta: own.rope_theta.unwrap_or(preset.rope_theta),
        rope_layout: match own.rope_layout {
            Writer::Transformers4 => RopeLayout::TopLevel,
            Writer::Transformers5 => RopeLayout::Parameters,
        },
        tied: !own.untied,
        dtype: args.dtype.into(),
        max_shard_bytes: own.shard_bytes.or(preset.max_shard_bytes),
        seed: args.seed.unwrap_or(preset.seed),
        ..preset
    })
}
