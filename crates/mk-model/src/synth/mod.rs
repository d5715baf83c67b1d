//! Random checkpoints in the Hugging Face layout: for tests, and for measuring speed without downloading anything.
//!
//! A checkpoint is a function of its [`Spec`], the seed included: the same bytes on every machine, since the weights
//! come from a counter-based generator and portable arithmetic only. It behaves like a trained model as far as
//! numbers go (logits with a standard deviation of about 3, a residual stream to which every layer adds its share)
//! and says nothing of sense.

mod config;
mod corpus;
pub mod file;
pub mod tensors;
pub mod tokenizer;
mod weights;

use std::path::Path;

use crate::checkpoint::Dtype;
use crate::config::Config;
use crate::error::{Error, Problem, Result};
use tokenizer::{ADDED, Bpe};

/// Where `config.json` keeps the base of the rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// `rope_theta` at the top, as transformers 4 writes it and the published Qwen3 checkpoints have it.
    TopLevel,
    /// In the object `rope_parameters`, as transformers 5 writes it.
    Parameters,
}

/// What a synthetic checkpoint is to be. The first fields are those of [`Config`].
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding. The tokenizer fills all but a few of them: see [`Spec::tokens`].
    pub vocab_size: usize,
    /// Positions the model claims to have been made for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Where `config.json` says so.
    pub rope_layout: RopeLayout,
    /// Whether the head is the embedding; otherwise the file holds `lm_head.weight`.
    pub tied: bool,
    /// How the weights are stored.
    pub dtype: Dtype,
    /// Tensor bytes in one file at most, where one tensor alone is not more; `None` for a single file.
    pub max_shard_bytes: Option<u64>,
    /// What the weights are drawn from.
    pub seed: u64,
}

impl Spec {
    /// Names that [`Spec::preset`] knows.
    pub const PRESETS: [&str; 4] = ["tiny", "0.6b", "1.7b", "4b"];

    /// Three narrow layers and 512 rows: 0.3 MB, runs anywhere at once.
    pub fn tiny() -> Self {
        Self {
            hidden_size: 64,
            intermediate_size: 160,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 32,
            vocab_size: 512,
            max_position_embeddings: 4096,
            rms_norm_eps: 1e-6,
            rope_theta: 1e6,
            rope_layout: RopeLayout::TopLevel,
            tied: true,
            dtype: Dtype::Bf16,
            max_shard_bytes: None,
            seed: 0,
        }
    }

    /// The shape of a published Qwen3 (`0.6b`, `1.7b`, `4b`) or `tiny`; `None` for other names. Tied, bf16, seed 0.
    pub fn preset(name: &str) -> Option<Self> {
        let (hidden_size, intermediate_size, num_hidden_layers, num_attention_heads) = match name {
            "tiny" => return Some(Self::tiny()),
            "0.6b" => (1024, 3072, 28, 16),
            "1.7b" => (2048, 6144, 28, 16),
            "4b" => (2560, 9728, 36, 32),
            _ => return None,
        };
        // Qwen publishes 4b in files of some 4 GB; below that, single files.
        let max_shard_bytes = (name == "4b").then_some(4_000_000_000);
        Some(Self {
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: 8,
            head_dim: 128,
            vocab_size: 151_936,
            max_position_embeddings: 40_960,
            max_shard_bytes,
            ..Self::tiny()
        })
    }

    /// Tokens of the tokenizer, added ones included: ids from here to `vocab_size` have rows but no text, as in the
    /// published models (267 of 151,936 there, the same share elsewhere, three at least).
    pub fn tokens(&self) -> usize {
        self.vocab_size.saturating_sub((self.vocab_size * 267 / 151_936).max(3))
    }

    /// Writes the checkpoint into `dir`, which is made where it does not exist: `config.json`,
    /// `generation_config.json`, the weights, `tokenizer.json` and `tokenizer_config.json`. Every file appears under
    /// its name only when it is whole. Needs less than 32 MB of memory besides the tokenizer, whatever the model's size.
    ///
    /// # Errors
    /// A spec that [`Config::from_json`] would refuse, or with fewer than 285 rows: the 256 bytes, the 26 added
    /// tokens and three rows to spare. Weight files of another checkpoint in `dir`. Failures to write.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let config = self.check(dir)?;
        let tokenizer = Bpe::train(self.tokens() - ADDED.len(), &[])
            .map_err(|e| Error::Tokenizer { path: dir.into(), reason: e.to_string() })?;
        std::fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.into(), source })?;
        weights::write(self, dir)?;
        file::write_json(dir, "tokenizer.json", &tokenizer.tokenizer_json(&ADDED))?;
        file::write_json(dir, "tokenizer_config.json", &tokenizer::config(&tokenizer))?;
        file::write_json(dir, "generation_config.json", &config::generation_config(self))?;
        // The config comes last: a directory that has one is a whole checkpoint.
        file::write_json(dir, "config.json", &config)
    }

    fn check(&self, dir: &Path) -> Result<serde_json::Value> {
        let config = config::config(self);
        let mut problems = Config::from_json(&config.to_string()).err().unwrap_or_default();
        let smallest = 256 + ADDED.len() + 3;
        if self.vocab_size < smallest {
            problems.push(Problem::BadField {
                field: "vocab_size".into(),
                reason: format!(
                    "{} is too small: 256 bytes, {} added tokens and 3 spare rows need {smallest}",
                    self.vocab_size,
                    ADDED.len()
                ),
            });
        }
        if self.max_shard_bytes == Some(0) {
            problems.push(Problem::BadField {
                field: "max_shard_bytes".into(),
                reason: "is zero".into(),
            });
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Error::Checkpoint { path: dir.into(), problems })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(spec: &Spec) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        spec.write(dir.path()).expect("a valid spec");
        dir
    }

    fn weights(spec: &Spec) -> Vec<u8> {
        fs::read(written(spec).path().join("model.safetensors")).expect("the file just written")
    }

    fn fnv(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        })
    }

    /// References made elsewhere from this checkpoint rely on its bytes.
    #[test]
    fn tiny_is_the_same_everywhere() {
        assert_eq!(fnv(&weights(&Spec::tiny())), 15_669_477_440_992_034_990);
        assert_ne!(weights(&Spec::tiny()), weights(&Spec { seed: 1, ..Spec::tiny() }));
    }

    #[test]
    fn files_are_what_they_claim() {
        for rope_layout in [RopeLayout::TopLevel, RopeLayout::Parameters] {
            let spec = Spec {
                rope_layout,
                tied: false,
                dtype: Dtype::F16,
                vocab_size: 301,
                max_shard_bytes: Some(50_000),
                ..Spec::tiny()
            };
            let dir = written(&spec);
            let read =
                |name: &str| fs::read(dir.path().join(name)).expect("a file of the checkpoint");
            let config = String::from_utf8(read("config.json")).expect("JSON is UTF-8");
            let config = Config::from_json(&config).expect("a config we can read");
            assert_eq!((config.vocab_size, config.rope_theta), (301, 1e6));
            assert_eq!(config.tie_word_embeddings, Some(false));
            assert_eq!(config.eos_token_ids, [301 - 3 - 26 + 2]);

            let index: serde_json::Value =
                serde_json::from_slice(&read("model.safetensors.index.json")).expect("JSON");
            let map = index["weight_map"].as_object().expect("a map");
            let mut bytes = 0;
            for (tensor, file) in map {
                let file = read(file.as_str().expect("a file name"));
                let file = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
                let tensor = file.tensor(tensor).expect("the tensor that the index has there");
                assert_eq!(tensor.dtype(), safetensors::Dtype::F16);
                bytes += tensor.data().len();
            }
            assert_eq!(map.len(), 2 + 3 * 11 + 1);
            assert_eq!(index["metadata"]["total_size"], bytes);
            assert!(!fs::read_dir(dir.path()).expect("the directory").any(|entry| {
                entry.expect("an entry").file_name().to_string_lossy().starts_with('.')
            }));
        }
    }

    #[test]
    fn a_tensor_does_not_depend_on_the_others() {
        let tensor = |spec: &Spec| {
            let file = weights(spec);
            let file = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
            file.tensor("model.layers.0.mlp.up_proj.weight").expect("a tensor").data().to_vec()
        };
        let tiny = Spec::tiny();
        assert_eq!(tensor(&tiny), tensor(&Spec { tied: false, vocab_size: 300, ..tiny }));
    }

    #[test]
    fn refuses_what_cannot_be() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let problems = |spec: Spec| match spec.write(dir.path()) {
            Err(Error::Checkpoint { problems, .. }) => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            }
            other => panic!("expected problems, got {other:?}"),
        };
        let small = problems(Spec { vocab_size: 284, ..Spec::tiny() });
        assert!(small.contains("284") && small.contains("285"), "{small}");
        let several = problems(Spec { num_key_value_heads: 3, head_dim: 31, ..Spec::tiny() });
        assert!(several.contains("num_key_value_heads") && several.contains("odd"), "{several}");
        assert!(problems(Spec { max_shard_bytes: Some(0), ..Spec::tiny() }).contains("zero"));
        assert!(fs::read_dir(dir.path()).expect("the directory").next().is_none());
        assert!(Spec { vocab_size: 285, ..Spec::tiny() }.write(dir.path()).is_ok());
    }

    #[test]
    fn refuses_a_directory_with_other_weights() {
        let dir = written(&Spec::tiny());
        Spec::tiny().write(dir.path()).expect("writing the same once more is fine");
        let sharded = Spec { max_shard_bytes: Some(50_000), ..Spec::tiny() };
        let error = sharded.write(dir.path()).expect_err("model.safetensors would be left over");
        assert!(error.to_string().contains("model.safetensors"), "{error}");
    }

    #[test]
    fn presets_have_the_published_sizes() {
        for (name, weights) in
            [("0.6b", 440_401_920), ("1.7b", 1_409_286_144), ("4b", 3_633_315_840)]
        {
            let spec = Spec::preset(name).expect("a preset");
            let text = config::config(&spec).to_string();
            let config = Config::from_json(&text).expect("a valid config");
            assert_eq!(config.layer_weights(), weights, "{name}");
            assert_eq!(spec.tokens(), 151_669);
            assert_eq!(config.eos_token_ids, [151_645]);
        }
        assert!(Spec::PRESETS.iter().all(|name| Spec::preset(name).is_some()));
        assert_eq!(Spec::preset("8b"), None);
    }
}
