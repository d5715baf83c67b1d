//! From codes to samples, frame by frame.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use mk_model::checkpoint::TensorFiles;

use super::CodecConfig;
use super::DecoderConfig;
use super::decoder_graph::{
    self, Bound, CODES, COS, EXTRA_ROWS, HIDDEN, MASK, SIN, StateTensor, WAVE,
};
use crate::error::{Error, Result};
use crate::onnx::cache::{self, Fingerprint};
use crate::runtime::{Graph, Runtime, Value};

/// Frames that are decoded in one run at the most: longer calls are cut, so that memory stays bounded. What comes out is
/// the same.
const MAX_FRAMES: usize = 24;
/// Frames of every run, filled up where there are fewer, on an engine that keeps to its shapes.
const BLOCK: usize = 4;

/// The decoder's graph, loaded. Cloning it is cheap; streams of one decoder share its weights.
#[derive(Clone)]
pub struct CodecDecoder {
    shared: Arc<Shared>,
}

struct Shared {
    graph: Box<dyn Graph>,
    config: CodecConfig,
    tensors: Vec<StateTensor>,
    bounds: Vec<Bound>,
    /// Frames of every run, where all have to be alike.
    block: Option<usize>,
    /// The state of a stream's beginning.
    zeros: Vec<Value>,
}

/// One utterance being decoded: what came before it decides, with the next codes, what comes next.
///
/// A clone goes on from the same point on its own, and costs next to nothing: a stream that has seen the codes of a voice's
/// reference can so begin many utterances.
#[derive(Clone)]
pub struct CodecStream {
    shared: Arc<Shared>,
    state: Vec<Value>,
    frames: u64,
}

impl CodecDecoder {
    /// Opens the decoder of a `speech_tokenizer` folder: `config.json` and safetensors.
    ///
    /// The graph is written once, in a second or a few, and kept beside the model, or in `cache_dir` where that cannot be
    /// written to. With neither it is made anew each time.
    ///
    /// # Errors
    /// Files missing or broken; everything about the config and the tensors that does not fit, at once; an engine that
    /// does not load the graph.
    pub fn open(dir: &Path, runtime: &Runtime, cache_dir: Option<&Path>) -> Result<Self> {
        let config = CodecConfig::open(dir)?;
        let tensors = TensorFiles::open(dir)?;
        let decoder = &config.decoder;
        let fingerprint = Fingerprint {
            code: decoder_graph::CODE,
            config: &format!("{decoder:?}"),
            prefix: "decoder.",
        };
        let build = || {
            decoder_graph::build(decoder, &tensors).map_err(|problems| {
                let path = dir.to_path_buf();
                Error::Model(mk_model::Error::Checkpoint { path, problems })
            })
        };
        let folders: Vec<&Path> = [Some(dir), cache_dir].into_iter().flatten().collect();
        let name = cache::name("decoder", &fingerprint, &tensors);
        let graph = cache::load(runtime, &folders, &name, build)?;
        let tensors = decoder_graph::state(decoder);
        let zeros = tensors
            .iter()
            .map(|tensor| Value::f32(&tensor.shape, vec![0.0; tensor.shape.iter().product()]))
            .collect::<Result<_>>()?;
        let bounds = decoder_graph::bounds(decoder);
        let block = graph.keeps_to_shapes().then_some(BLOCK);
        Ok(Self { shared: Arc::new(Shared { graph, config, tensors, bounds, block, zeros }) })
    }

    /// A stream at its beginning.
    pub fn new_stream(&self) -> CodecStream {
        let shared = Arc::clone(&self.shared);
        CodecStream { state: shared.zeros.clone(), shared, frames: 0 }
    }

    /// Samples that each frame becomes.
    pub fn samples_per_frame(&self) -> usize {
        self.shared.config.decode_upsample_rate
    }

    /// Samples a second.
    pub fn sample_rate(&self) -> usize {
        self.shared.config.output_sample_rate
    }

    /// Codes of a frame.
    pub fn groups(&self) -> usize {
        self.shared.config.decoder.num_quantizers
    }
}

impl CodecStream {
    /// The samples of the next frames, mono, from -1 to 1: [`CodecDecoder::samples_per_frame`] for each. `codes` holds
    /// `[frames][groups]`; any number of frames, and how they are spread over calls makes no difference.
    ///
    /// # Errors
    /// Codes that are not whole frames or out of range, samples that are not finite, what the engine reports. The stream
    /// is then where it was before, but for whole runs of frames of a long call.
    pub fn decode(&mut self, codes: &[u32]) -> Result<Vec<f32>> {
        let groups = self.shared.config.decoder.num_quantizers;
        self.check(codes, groups)?;
        let mut samples = Vec::new();
        for piece in codes.chunks(self.shared.block.unwrap_or(MAX_FRAMES) * groups) {
            samples.extend(self.run(piece, groups)?);
        }
        Ok(samples)
    }

    /// Frames decoded so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    fn check(&self, codes: &[u32], groups: usize) -> Result<()> {
        if !codes.len().is_multiple_of(groups) {
            return Err(Error::NotWholeFrames { found: codes.len(), groups });
        }
        let size = self.shared.config.decoder.codebook_size;
        match codes.iter().position(|&code| code as usize >= size) {
            Some(at) => Err(Error::CodeOutOfRange {
                frame: self.frames + (at / groups) as u64,
                group: at % groups,
                code: codes[at],
                size,
            }),
            None => Ok(()),
        }
    }

    fn run(&mut self, codes: &[u32], groups: usize) -> Result<Vec<f32>> {
        let given = codes.len() / groups;
        let Shared { graph, config, tensors, bounds, block, .. } = &*self.shared;
        let frames = block.unwrap_or(given);
        let mut codes: Vec<i64> = codes.iter().copied().map(i64::from).collect();
        codes.resize(frames * groups, 0);
        let (rows, half) = (frames + EXTRA_ROWS, config.decoder.head_dim / 2);
        let (cos, sin) = angles(&config.decoder, self.frames, frames);
        let mask = mask(config.decoder.sliding_window, self.frames, frames);
        let mut inputs = vec![
            (CODES, Value::i64(&[1, frames, groups], codes)?),
            (COS, Value::f32(&[rows, half], cos)?),
            (SIN, Value::f32(&[rows, half], sin)?),
            (MASK, Value::f32(&[rows, mask.len() / rows], mask)?),
        ];
        let names: Vec<String> = bounds.iter().map(Bound::input).collect();
        for (bound, name) in bounds.iter().zip(&names) {
            let place = given * bound.per_frame + bound.after;
            inputs.push((name, Value::i64(&[1], vec![place as i64])?));
        }
        let past = tensors.iter().zip(&self.state);
        inputs.extend(past.map(|(tensor, value)| (tensor.input.as_str(), value.clone())));
        let next: Vec<&str> = tensors.iter().map(|tensor| tensor.output.as_str()).collect();
        let mut values = graph.run(inputs, &[WAVE], &next)?;
        let (_, mut samples) = values.remove(0).into_f32()?;
        let per_frame = config.decode_upsample_rate;
        if samples.len() != frames * per_frame {
            let (found, expected) = (samples.len(), frames * per_frame);
            let reason = format!("{found} samples for {frames} frames, expected {expected}");
            return Err(Error::Value { reason });
        }
        samples.truncate(given * per_frame);
        if let Some(at) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(Error::SampleNotFinite { frame: self.frames + (at / per_frame) as u64 });
        }
        samples.iter_mut().for_each(|sample| *sample = sample.clamp(-1.0, 1.0));
        self.state = values;
        self.frames += given as u64;
        Ok(samples)
    }
}

/// Cosines and sines [frames + EXTRA_ROWS][head_dim / 2] of the frames that follow `before`. In f64, in which no stream is too long.
fn angles(config: &DecoderConfig, before: u64, frames: usize) -> (Vec<f32>, Vec<f32>) {
    let half = config.head_dim / 2;
    // The reference keeps its frequencies in f32.
    let frequency =
        |i: usize| config.rope_theta.powf(-2.0 * i as f64 / config.head_dim as f64) as f32;
    (0..(frames + EXTRA_ROWS) as u64)
        .flat_map(|frame| (0..half).map(move |i| (before + frame) as f64 * f64::from(frequency(i))))
        .map(|angle| (angle.cos() as f32, angle.sin() as f32))
        .unzip()
}

/// [frames + EXTRA_ROWS][window - 1 + frames]: each frame sees itself and as many before it as the window holds, where there are any.
fn mask(window: usize, before: u64, frames: usize) -> Vec<f32> {
    let kept = window - 1;
    let missing = kept.saturating_sub(usize::try_from(before).unwrap_or(usize::MAX));
    (0..frames + EXTRA_ROWS)
        .flat_map(|frame| {
            let seen = frame.max(missing)..=frame + kept;
            (0..kept + frames).map(move |place| if seen.contains(&place) { 0.0 } else { HIDDEN })
        })
        .collect()
}

impl fmt::Debug for CodecDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecDecoder").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for CodecStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecStream").field("frames", &self.frames).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
