//! From samples to codes.

use std::path::Path;

use mk_model::Problem;
use mk_model::checkpoint::TensorFiles;

use super::config::CodecConfig;
use super::encoder_graph::{
    self, CODES, COSINES, EMBEDDINGS, EMBEDDINGS_PER_FRAME, MASK, SAMPLES, SINES,
};
use crate::audio::finite;
use crate::config::checkpoint;
use crate::error::{Error, Result};
use crate::onnx::cache::{self, Fingerprint};
use crate::runtime::{Graph, Runtime, Value};

/// Embeddings that are computed at once, 4 s at the published rates: the convolutions hold 64 channels at the rate of
/// the samples, so that memory would be hundreds of megabytes for a long sound.
const PIECE: usize = 100;

/// The codec's encoder, ready to run. May be shared between threads.
pub struct CodecEncoder {
    config: CodecConfig,
    to_embeddings: Box<dyn Graph>,
    to_codes: Box<dyn Graph>,
}

impl CodecEncoder {
    /// Longest sound that is taken, in seconds: attention needs memory by the square of the length.
    pub const MAX_SECONDS: f64 = 120.0;

    /// Opens the encoder of a `speech_tokenizer` folder: `config.json` and safetensors.
    ///
    /// Its graphs are written once and kept beside the model, or in `cache_dir` where that cannot be written to.
    ///
    /// # Errors
    /// Files missing or broken; everything about the config and the tensors that does not fit, at once; an engine that
    /// does not load the graphs.
    pub fn open(dir: &Path, runtime: &Runtime, cache_dir: Option<&Path>) -> Result<Self> {
        let config = CodecConfig::open(dir)?;
        let tensors = TensorFiles::open(dir)?;
        check_rates(&config).map_err(|problem| checkpoint(dir, vec![problem]))?;
        let folders: Vec<&Path> = [Some(dir), cache_dir].into_iter().flatten().collect();
        let groups = config.encoder_valid_num_quantizers;
        let fingerprint = Fingerprint {
            code: encoder_graph::CODE,
            config: &format!("{:?} {groups}", config.encoder),
            prefix: "encoder.",
        };
        let name = |part: &str| cache::name(part, &fingerprint, &tensors);
        let broken = |problems| checkpoint(dir, problems);
        let to_embeddings = cache::load(runtime, &folders, &name("encoder-samples"), || {
            encoder_graph::samples_to_embeddings(&config.encoder, &tensors).map_err(broken)
        })?;
        let to_codes = cache::load(runtime, &folders, &name("encoder-codes"), || {
            encoder_graph::embeddings_to_codes(&config, &tensors).map_err(broken)
        })?;
        Ok(Self { config, to_embeddings, to_codes })
    }

    /// Samples a second that [`Self::encode`] takes.
    pub fn sample_rate(&self) -> usize {
        self.config.input_sample_rate
    }

    /// Codes of a frame.
    pub fn groups(&self) -> usize {
        self.config.encoder_valid_num_quantizers
    }

    /// Samples that become a frame; the last frame may have fewer.
    pub fn samples_per_frame(&self) -> usize {
        self.config.encode_downsample_rate
    }

    /// The codes of mono samples, `[frames][groups]` with `ceil(samples / samples_per_frame)` frames.
    ///
    /// # Errors
    /// No samples, more than [`Self::MAX_SECONDS`], samples that are no numbers, and what the engine says.
    pub fn encode(&self, samples: &[f32]) -> Result<Vec<u32>> {
        let name = "the sound to encode";
        let seconds = samples.len() as f64 / self.sample_rate() as f64;
        if samples.is_empty() {
            return Err(Error::AudioEmpty { name: name.into() });
        }
        if seconds > Self::MAX_SECONDS {
            return Err(Error::ReferenceTooLong { seconds, most: Self::MAX_SECONDS });
        }
        finite(name, samples)?;
        let (count, embeddings) = self.embeddings(samples)?;
        self.codes(count, embeddings)
    }

    /// Number of embeddings of `samples`, and the embeddings [hidden][embeddings].
    fn embeddings(&self, samples: &[f32]) -> Result<(usize, Vec<f32>)> {
        let encoder = &self.config.encoder;
        let (hop, context) = (encoder_graph::hop(encoder), encoder_graph::context(encoder));
        let count = samples.len().div_ceil(hop);
        let mut all = vec![0.0; encoder.hidden_size * count];
        for begin in (0..count).step_by(PIECE) {
            // An embedding sees nothing beyond the context; what sees the beginning of the piece is dropped.
            let dropped = begin.min(context);
            let end = (begin + PIECE).min(count);
            let piece = &samples[(begin - dropped) * hop..(end * hop).min(samples.len())];
            let input = Value::f32(&[1, 1, piece.len()], piece.to_vec())?;
            let mut outputs = self.to_embeddings.run(vec![(SAMPLES, input)], &[EMBEDDINGS], &[])?;
            let (_, embeddings) = outputs.remove(0).into_f32()?;
            let rows = embeddings.chunks_exact(dropped + end - begin);
            for (row, target) in rows.zip(all.chunks_exact_mut(count)) {
                target[begin..end].copy_from_slice(&row[dropped..]);
            }
        }
        Ok((count, all))
    }

    /// The codes of `count` embeddings.
    fn codes(&self, count: usize, embeddings: Vec<f32>) -> Result<Vec<u32>> {
        let encoder = &self.config.encoder;
        let half = encoder.head_dim / 2;
        // In f32 as in the reference; only the functions themselves are computed in more.
        let angle = |position: usize, i: usize| {
            let exponent = (2 * i) as f64 / encoder.head_dim as f64;
            let frequency = (1.0 / encoder.rope_theta.powf(exponent)) as f32;
            f64::from(position as f32 * frequency)
        };
        let table = |function: fn(f64) -> f64| {
            let values = (0..count * half).map(|n| function(angle(n / half, n % half)) as f32);
            Value::f32(&[count, half], values.collect())
        };
        let mask = (0..count * count).map(|n| match n % count > n / count {
            true => f32::NEG_INFINITY,
            false => 0.0,
        });
        let inputs = vec![
            (EMBEDDINGS, Value::f32(&[1, encoder.hidden_size, count], embeddings)?),
            (COSINES, table(f64::cos)?),
            (SINES, table(f64::sin)?),
            (MASK, Value::f32(&[count, count], mask.collect())?),
        ];
        let (_, codes) = self.to_codes.run(inputs, &[CODES], &[])?.remove(0).into_i64()?;
        // Indices of a codebook's entries, which are fewer than 2^20.
        Ok(codes.into_iter().map(|code| code as u32).collect())
    }
}

/// Holds the strides against the rates that the config names.
fn check_rates(config: &CodecConfig) -> Result<(), Problem> {
    let found = config.encode_downsample_rate;
    let strides = encoder_graph::hop(&config.encoder).saturating_mul(EMBEDDINGS_PER_FRAME);
    if found == strides {
        return Ok(());
    }
    Err(Problem::BadField {
        field: "encode_downsample_rate".into(),
        reason: format!("is {found}, but the encoder's strides multiply to {strides}"),
    })
}
