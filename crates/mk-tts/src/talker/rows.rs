//! Rows that the talker is fed: tokens of the text, codes, and sums of them.

use mk_model::checkpoint::{Tensor, TensorFiles};
use mk_model::{Linear, Model};

use super::predictor;
use crate::config::TtsConfig;
use crate::error::{Error, Result};

const TEXT_EMBEDDING: &str = "talker.model.text_embedding.weight";
const CODEC_EMBEDDING: &str = "talker.model.codec_embedding.weight";
const PROJECTION: [&str; 4] = [
    "talker.text_projection.linear_fc1.weight",
    "talker.text_projection.linear_fc1.bias",
    "talker.text_projection.linear_fc2.weight",
    "talker.text_projection.linear_fc2.bias",
];

/// The embeddings, and the projection of the text's into the width of the talker.
pub(super) struct Rows {
    text: Tensor,
    up: Linear,
    down: Linear,
    /// One embedding for each code of a frame, `[codes, hidden_size]`; the first has the codec's other ids too.
    codes: Vec<Tensor>,
    width: usize,
}

/// Name and shape of every tensor that [`Rows`] is made of, but those that the predictor shares.
pub(super) fn expected(config: &TtsConfig) -> Vec<(String, Vec<usize>)> {
    let (text, hidden) = (config.text_hidden_size, config.talker.hidden_size);
    let [up, up_bias, down, down_bias] = PROJECTION;
    [
        (TEXT_EMBEDDING, vec![config.text_vocab_size, text]),
        (CODEC_EMBEDDING, vec![config.talker.vocab_size, hidden]),
        (up, vec![text, text]),
        (up_bias, vec![text]),
        (down, vec![hidden, text]),
        (down_bias, vec![hidden]),
    ]
    .map(|(name, shape)| (name.to_string(), shape))
    .into()
}

impl Rows {
    /// Takes tensors whose shapes have been checked.
    pub(super) fn new(config: &TtsConfig, tensors: &TensorFiles, model: &Model) -> Result<Self> {
        let tensor = |name: &str| tensors.get(name).expect("its shape was checked");
        let [up, up_bias, down, down_bias] = PROJECTION.map(tensor);
        let others = (1..config.code_groups).map(|group| tensor(&predictor::embedding(group)));
        let codes = std::iter::once(tensor(CODEC_EMBEDDING)).chain(others);
        Ok(Self {
            text: tensor(TEXT_EMBEDDING).clone(),
            up: model.linear(up, Some(up_bias))?,
            down: model.linear(down, Some(down_bias))?,
            codes: codes.cloned().collect(),
            width: config.talker.hidden_size,
        })
    }

    /// Width of a row.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Rows of tokens of the text, f32 `[ids, hidden_size]`: `fc2(silu(fc1(embedding)))`.
    pub(super) fn text(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut embedded = Vec::with_capacity(ids.len() * self.up.inputs());
        for &id in ids {
            embedded.extend(look_up(&self.text, id)?);
        }
        let mut hidden = self.up.forward(&embedded)?;
        hidden.iter_mut().for_each(|x| *x /= 1.0 + (-*x).exp());
        Ok(self.down.forward(&hidden)?)
    }

    /// The row of an id of the codec's vocabulary: a first code, a language, a speaker.
    pub(super) fn codec(&self, id: u32) -> Result<Vec<f32>> {
        look_up(&self.codes[0], id)
    }

    /// The row of one code of a frame.
    pub(super) fn code(&self, group: usize, code: u32) -> Result<Vec<f32>> {
        look_up(&self.codes[group], code)
    }

    /// The row of a whole frame: the sum of its codes' rows.
    pub(super) fn frame(&self, codes: &[u32]) -> Result<Vec<f32>> {
        let mut sum = vec![0.0; self.width];
        for (group, code) in codes.iter().enumerate() {
            add(&mut sum, &self.code(group, *code)?);
        }
        Ok(sum)
    }
}

/// Adds a row to another.
pub(super) fn add(sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
}

fn look_up(embedding: &Tensor, id: u32) -> Result<Vec<f32>> {
    embedding.row(id as usize).ok_or_else(|| Error::NoSuchRow {
        tensor: embedding.name().into(),
        id,
        rows: embedding.shape().first().copied().unwrap_or(0),
    })
}
