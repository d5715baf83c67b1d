//! `cargo xtask synth`: a random checkpoint to try things with.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;
use mk_model::Dtype;
use mk_model::synth::{RopeLayout, Spec};

/// Write a random checkpoint in the Hugging Face layout, from a seed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to write
    out: PathBuf,
    /// Shape to begin with; the flags below change it
    #[arg(long, default_value = "tiny", value_parser = Spec::PRESETS)]
    shape: String,
    /// What the weights are drawn from
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Give the model a head of its own, apart from the embedding
    #[arg(long)]
    untied: bool,
    /// How the weights are stored
    #[arg(long, value_enum, default_value_t = Stored::Bf16)]
    dtype: Stored,
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Writer {
    Transformers4,
    Transformers5,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let preset = Spec::preset(&args.shape).context("no such shape")?;
    let spec = Spec {
        hidden_size: args.hidden.unwrap_or(preset.hidden_size),
        intermediate_size: args.intermediate.unwrap_or(preset.intermediate_size),
        num_hidden_layers: args.layers.unwrap_or(preset.num_hidden_layers),
        num_attention_heads: args.heads.unwrap_or(preset.num_attention_heads),
        num_key_value_heads: args.kv_heads.unwrap_or(preset.num_key_value_heads),
        head_dim: args.head_dim.unwrap_or(preset.head_dim),
        vocab_size: args.vocab.unwrap_or(preset.vocab_size),
        max_position_embeddings: args.max_positions.unwrap_or(preset.max_position_embeddings),
        rope_theta: args.rope_theta.unwrap_or(preset.rope_theta),
        rope_layout: match args.rope_layout {
            Writer::Transformers4 => RopeLayout::TopLevel,
            Writer::Transformers5 => RopeLayout::Parameters,
        },
        tied: !args.untied,
        dtype: match args.dtype {
            Stored::Bf16 => Dtype::Bf16,
            Stored::F16 => Dtype::F16,
            Stored::F32 => Dtype::F32,
        },
        max_shard_bytes: args.shard_bytes.or(preset.max_shard_bytes),
        seed: args.seed,
        ..preset
    };
    spec.write(&args.out)?;
    println!("{}", args.out.display());
    Ok(())
}
