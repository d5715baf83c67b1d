//! Logits along codes that are given: what a model is compared by.

use mk_model::{Input, Readout, Rows};

use super::{Talker, rows};
use crate::error::Result;

/// What the two decoders make of given frames.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Forced {
    /// The talker's logits before each frame and after the last, f32 `[frames + 1, codec vocabulary]`.
    pub logits: Vec<f32>,
    /// The hidden states they come from, f32 `[frames + 1, hidden_size]`.
    pub hidden: Vec<f32>,
    /// The code predictor's logits, f32 `[frames, code_groups - 1, codes]`.
    pub predictor_logits: Vec<f32>,
}

impl Talker {
    /// Runs the loop along `codes`, `[frames][code_groups]`, after the prompt `rows`; `text` are the ids that go with
    /// the frames, one each.
    ///
    /// # Errors
    /// Rows or codes that do not fit the model.
    pub fn forced(&self, rows: &[f32], codes: &[u32], text: &[u32]) -> Result<Forced> {
        let readout = Readout { logits: Rows::Last, hidden: Rows::Last, ..Readout::NOTHING };
        let mut sequence = self.model().sequence()?;
        let mut predictor = self.predictor().sequence()?;
        let mut output = sequence.extend(Input::Embeddings(rows), readout)?;
        let mut forced = Forced::default();
        for (frame, text) in codes.chunks_exact(self.config().code_groups).zip(text) {
            let hidden = &output.hidden;
            let logits = self.predictor().logits(&mut predictor, self.rows(), hidden, frame)?;
            forced.predictor_logits.extend(logits);
            forced.logits.append(&mut output.logits);
            forced.hidden.append(&mut output.hidden);
            let mut row = self.rows().frame(frame)?;
            rows::add(&mut row, &self.rows().text(&[*text])?);
            output = sequence.extend(Input::Embeddings(&row), readout)?;
        }
        forced.logits.append(&mut output.logits);
        forced.hidden.append(&mut output.hidden);
        Ok(forced)
    }
}
