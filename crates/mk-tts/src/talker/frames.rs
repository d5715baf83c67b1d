//! The frame loop: codes, one frame after the other.

use mk_model::{Input, Readout, Rows, Sequence};

use super::{Talker, rows};
use crate::config::SpeechSampling;
use crate::error::Result;

/// qwen_tts' `min_new_tokens`: as many first codes are drawn before the end may be.
const MIN_FRAMES: usize = 2;

/// A speech in the making: the caches of the talker and of the code predictor.
///
/// Every turn of the loop is [`Frames::next_frame`], which completes a frame or finds the end, and [`Frames::feed`], which gives the frame
/// back to the talker together with the next token of the text. Between the two there is all the time that the text needs
/// to arrive.
pub struct Frames {
    talker: Talker,
    sequence: Sequence,
    predictor: Sequence,
    sampling: SpeechSampling,
    /// First codes drawn.
    drawn: usize,
    next: Next,
}

/// What the talker has said last.
struct Next {
    first: u32,
    hidden: Vec<f32>,
}

impl Talker {
    /// A sequence that holds rows f32 `[rows, hidden_size]`, to fork speeches from ([`Frames::begin`]).
    ///
    /// # Errors
    /// Rows that the decoder refuses; memory.
    pub fn sequence(&self, rows: &[f32]) -> Result<Sequence> {
        let mut sequence = self.model().sequence()?;
        sequence.extend(Input::Embeddings(rows), Readout::NOTHING)?;
        Ok(sequence)
    }
}

impl Frames {
    /// Feeds the last rows before the first frame, f32 `[rows, hidden_size]`, to a sequence that holds what goes before
    /// them, and chooses the first code.
    ///
    /// # Errors
    /// Rows that the decoder refuses, sampling parameters out of range.
    pub fn begin(
        talker: &Talker,
        sequence: Sequence,
        rows: &[f32],
        sampling: &SpeechSampling,
    ) -> Result<Self> {
        let mut sampling = sampling.clone();
        let suppressed = &mut sampling.talker.suppress;
        suppressed.extend(talker.config().suppressed());
        // The end is last, so that it can be let go when its time has come.
        suppressed.push(talker.config().codec_ids.eos);
        let mut frames = Self {
            talker: talker.clone(),
            sequence,
            predictor: talker.predictor().sequence()?,
            sampling,
            drawn: 0,
            next: Next { first: 0, hidden: Vec::new() },
        };
        frames.step(rows)?;
        Ok(frames)
    }

    /// Positions of the talker's cache that are left.
    pub fn room(&self) -> usize {
        self.sequence.capacity() - self.sequence.len()
    }

    /// The next frame's codes, `[code_groups]`, or `None` at the end of the speech. Draws anew each time it is called:
    /// call it once a frame.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u32>>> {
        let Next { first, hidden } = &self.next;
        if *first == self.talker.config().codec_ids.eos {
            return Ok(None);
        }
        let (rows, sampling) = (self.talker.rows(), &self.sampling.predictor);
        let predictor = self.talker.predictor();
        predictor.sample(&mut self.predictor, rows, hidden, *first, sampling).map(Some)
    }

    /// Gives a frame back to the talker, with the text's next id, and chooses the first code of the next.
    ///
    /// # Errors
    /// Those of the decoder; a full context.
    pub fn feed(&mut self, frame: &[u32], text: u32) -> Result<()> {
        let mut row = self.talker.rows().frame(frame)?;
        rows::add(&mut row, &self.talker.rows().text(&[text])?);
        self.step(&row)
    }

    fn step(&mut self, rows: &[f32]) -> Result<()> {
        if self.drawn == MIN_FRAMES {
            self.sampling.talker.suppress.pop();
        }
        let readout = Readout { hidden: Rows::Last, ..Readout::NOTHING };
        let step = self.sequence.step(Input::Embeddings(rows), &self.sampling.talker, readout)?;
        self.drawn += 1;
        self.next = Next { first: step.token, hidden: step.output.hidden };
        Ok(())
    }
}
