//! The speaker encoder: a voice as one vector, which the talker takes as a row of its prompt.
//!
//! Only Base checkpoints have one. Sound goes through the log-mel spectrogram ([`mel`]) and an ECAPA-TDNN that
//! we write as an ONNX graph from the checkpoint's tensors.

mod config;
mod graph;
pub mod mel;

use std::path::Path;

use mk_model::checkpoint::TensorFiles;

pub use config::SpeakerConfig;

use crate::audio::finite;
use crate::config::checkpoint;
use crate::error::{Error, Result};
use crate::runtime::{Graph, Runtime, Source, Value};
use mel::MelSpectrogram;

/// A speaker encoder, ready to run. May be shared between threads.
pub struct SpeakerEncoder {
    config: SpeakerConfig,
    mel: MelSpectrogram,
    graph: Box<dyn Graph>,
}

impl SpeakerEncoder {
    /// Makes the encoder of the checkpoint in `dir`, whose tensors are `tensors`.
    ///
    /// # Errors
    /// [`Error::NoSpeakerEncoder`] for a checkpoint without one, everything that is wrong with its config or its
    /// tensors, and what the engine says.
    pub fn open(dir: &Path, tensors: &TensorFiles, runtime: &Runtime) -> Result<Self> {
        let config = SpeakerConfig::open(dir)?;
        let bytes = graph::build(&config, tensors).map_err(|p| checkpoint(dir, p))?;
        let graph = runtime.load(Source::Bytes(&bytes))?;
        Ok(Self { config, mel: MelSpectrogram::new(), graph })
    }

    /// Its dimensions.
    pub fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// The voice in mono samples at [`mel::SAMPLE_RATE`]: a vector of `enc_dim` numbers.
    ///
    /// # Errors
    /// Samples that are too few to be mirrored at the ends, or no numbers, and what the engine says. Whether there is
    /// enough of a voice to be worth encoding is for [`crate::audio::check_reference`] to say.
    pub fn embed(&self, samples: &[f32]) -> Result<Vec<f32>> {
        finite("the sound of a voice", samples)?;
        let frames = MelSpectrogram::frames(samples.len());
        let least = self.config.most_mirrored() + 1;
        let mel = self.mel.compute(samples).filter(|_| frames >= least);
        let Some(mel) = mel else {
            let seconds = |samples: usize| samples as f64 / f64::from(mel::SAMPLE_RATE);
            let least = seconds(MelSpectrogram::samples(least).max(MelSpectrogram::MIN_SAMPLES));
            return Err(Error::ReferenceTooShort { seconds: seconds(samples.len()), least });
        };
        let mel = Value::f32(&[1, self.config.mel_dim, frames], mel)?;
        let mut outputs = self.graph.run(vec![(graph::INPUT, mel)], &[graph::OUTPUT], &[])?;
        let (_, voice) = outputs.remove(0).into_f32()?;
        finite("the vector of a voice", &voice)?;
        Ok(voice)
    }
}
