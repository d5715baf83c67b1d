//! The code predictor: the codes of a frame after the first, one after the other.
//!
//! The schedule is that of `Qwen3TTSTalkerCodePredictorModelForConditionalGeneration`: the cache is empty at the
//! beginning of every frame; the talker's hidden state and the first code's row go in together, and every code that is
//! made goes in for the next, each by an embedding and out of a head of its own.

use mk_model::checkpoint::{Layout, TensorFiles};
use mk_model::{Input, Linear, Model, Readout, Rows, Sampling, Sequence};

use super::rows;
use crate::config::TtsConfig;
use crate::error::Result;

const PREFIX: &str = "talker.code_predictor.";

pub(super) struct Predictor {
    model: Model,
    /// From the talker's width to the predictor's, where they differ.
    projection: Option<Linear>,
    code_groups: usize,
}

/// Where the predictor's decoder is in the checkpoint.
pub(super) fn layout(config: &TtsConfig) -> Layout {
    Layout {
        prefix: format!("{PREFIX}model."),
        embedding: None,
        heads: (0..config.code_groups - 1)
            .map(|head| format!("{PREFIX}lm_head.{head}.weight"))
            .collect(),
    }
}

/// Name of the embedding of a frame's code `group`, from 1; as wide as the talker.
pub(super) fn embedding(group: usize) -> String {
    format!("{PREFIX}model.codec_embedding.{}.weight", group - 1)
}

fn projection() -> [String; 2] {
    ["weight", "bias"].map(|part| format!("{PREFIX}small_to_mtp_projection.{part}"))
}

/// Name and shape of every tensor beside the decoder itself.
pub(super) fn expected(config: &TtsConfig) -> Vec<(String, Vec<usize>)> {
    let (talker, own) = (config.talker.hidden_size, config.predictor.hidden_size);
    let mut all: Vec<_> = (1..config.code_groups)
        .map(|group| (embedding(group), vec![config.predictor.vocab_size, talker]))
        .collect();
    if talker != own {
        let [weight, bias] = projection();
        all.extend([(weight, vec![own, talker]), (bias, vec![own])]);
    }
    all
}

impl Predictor {
    /// Takes tensors whose shapes have been checked.
    pub(super) fn new(config: &TtsConfig, tensors: &TensorFiles, model: Model) -> Result<Self> {
        let [weight, bias] = projection();
        let projection = match tensors.get(&weight) {
            Some(weight) if config.talker.hidden_size != config.predictor.hidden_size => {
                Some(model.linear(weight, tensors.get(&bias))?)
            }
            _ => None,
        };
        Ok(Self { model, projection, code_groups: config.code_groups })
    }

    /// A cache for the frames of one speech.
    pub(super) fn sequence(&self) -> Result<Sequence> {
        // Two rows for the first code, one for each of the others but the last, which goes to the talker.
        Ok(self.model.sequence_with_capacity(self.code_groups)?)
    }

    /// Samples the codes after the first, whose choice went before. `hidden` is the talker's hidden state.
    pub(super) fn sample(
        &self,
        sequence: &mut Sequence,
        embeddings: &rows::Rows,
        hidden: &[f32],
        first: u32,
        sampling: &Sampling,
    ) -> Result<Vec<u32>> {
        let mut frame = vec![first];
        self.run(sequence, embeddings, hidden, &mut frame, |sequence, input, head| {
            Ok(sequence.step(input, sampling, Readout { head, ..Readout::NOTHING })?.token)
        })?;
        Ok(frame)
    }

    /// The logits of every code after the first, f32 `[code_groups - 1, codes]`, given the frame.
    pub(super) fn logits(
        &self,
        sequence: &mut Sequence,
        embeddings: &rows::Rows,
        hidden: &[f32],
        codes: &[u32],
    ) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        let mut frame = vec![codes[0]];
        self.run(sequence, embeddings, hidden, &mut frame, |sequence, input, head| {
            let readout = Readout { logits: Rows::Last, head, ..Readout::NOTHING };
            logits.extend(sequence.extend(input, readout)?.logits);
            Ok(codes[head + 1])
        })?;
        Ok(logits)
    }

    /// Completes `frame`, of which the first code is there: `choose` runs the model on its input and says the next.
    fn run(
        &self,
        sequence: &mut Sequence,
        embeddings: &rows::Rows,
        hidden: &[f32],
        frame: &mut Vec<u32>,
        mut choose: impl FnMut(&mut Sequence, Input<'_>, usize) -> Result<u32>,
    ) -> Result<()> {
        sequence.truncate(0);
        let mut input = hidden.to_vec();
        for group in 0..self.code_groups - 1 {
            input.extend(embeddings.code(group, frame[group])?);
            if let Some(projection) = &self.projection {
                input = projection.forward(&input)?;
            }
            frame.push(choose(sequence, Input::Embeddings(&input), group)?);
            input.clear();
        }
        Ok(())
    }
}
