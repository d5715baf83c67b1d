//! One sequence of a model: its KV cache, what is in it, and the ways to go on from there.

use std::ops::ControlFlow;

use crate::backend::{Input, Output, Readout, Run, State, Step};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::sampling::{Sampling, Seen};

/// A sequence of tokens (or embedding rows) and the state they left in the model.
///
/// ```no_run
/// use std::ops::ControlFlow;
/// use mk_model::{Checkpoint, DecodeOptions, Model, ModelOptions, Sampling};
///
/// # fn main() -> mk_model::Result<()> {
/// let checkpoint = Checkpoint::open("Qwen3-0.6B")?;
/// let model = Model::load(&checkpoint, &ModelOptions::default())?;
/// let mut sequence = model.sequence()?;
/// sequence.set_prompt(&[785, 6722, 315, 9625, 374])?;
/// let options = DecodeOptions { max_tokens: 20, ..DecodeOptions::default() };
/// sequence.decode(&Sampling::default(), &options, |step| {
///     println!("{}", step.token);
///     ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct Sequence {
    model: Model,
    state: Box<dyn State>,
    capacity: usize,
    /// What each position of the cache came from; `None` for an embedding row.
    cached: Vec<Option<u32>>,
    /// Tokens that belong to the sequence and will enter the cache with whatever comes next.
    pending: Vec<u32>,
    seen: Seen,
    draws: u64,
}

/// How far and how to decode.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeOptions {
    /// Tokens to make at most.
    pub max_tokens: usize,
    /// Ids that end the run; the model's own if `None`. An empty list means that nothing does.
    pub stop_ids: Option<Vec<u32>>,
    /// What each step reports beside its token.
    pub readout: Readout,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { max_tokens: 256, stop_ids: None, readout: Readout::NOTHING }
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model made this id, which ends a generation.
    Stop(u32),
    /// The text came to a stop string; only [`crate::generate`] looks for those.
    StopString,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller wanted no more.
    Cancelled,
}

/// One sampled token and what was read out with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: u32,
    /// The logits it was sampled from and the hidden state they come from, as far as asked for.
    pub output: Output,
}

impl Model {
    /// An empty sequence that may grow as long as the model allows. It takes memory as it grows.
    ///
    /// # Errors
    /// Memory of the device that cannot be had.
    pub fn sequence(&self) -> Result<Sequence> {
        self.sequence_with_capacity(self.config().max_position_embeddings)
    }

    /// An empty sequence of at most `capacity` positions.
    ///
    /// # Errors
    /// Memory of the device that cannot be had.
    pub fn sequence_with_capacity(&self, capacity: usize) -> Result<Sequence> {
        Sequence::new(self.clone(), capacity)
    }
}

impl Sequence {
    fn new(model: Model, capacity: usize) -> Result<Self> {
        let state = model.inner.backend.state(capacity)?;
        let seen = Seen::new(model.config().vocab_size);
        Ok(Self { model, state, capacity, cached: Vec::new(), pending: Vec::new(), seen, draws: 0 })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Positions of the sequence.
    pub fn len(&self) -> usize {
        self.cached.len() + self.pending.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions it may grow to.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Positions whose keys and values are computed; the rest is computed with the next call that runs the model.
    pub fn cached_len(&self) -> usize {
        self.cached.len()
    }

    /// A second sequence that begins as this one is and goes on by itself: a prompt that many texts begin with is
    /// computed once. Random draws begin anew, and so does what the repetition penalty holds against sampled ids that
    /// never entered the sequence.
    ///
    /// # Errors
    /// Memory of the device that cannot be had.
    pub fn fork(&self) -> Result<Self> {
        let mut fork = Self {
            model: self.model.clone(),
            state: self.state.fork()?,
            capacity: self.capacity,
            cached: self.cached.clone(),
            pending: self.pending.clone(),
            seen: Seen::new(self.model.config().vocab_size),
            draws: 0,
        };
        fork.note_seen_again();
        Ok(fork)
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.truncate(0);
        self.draws = 0;
    }

    /// Forgets all positions from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.pending.truncate(len.saturating_sub(self.cached.len()));
        self.cached.truncate(len);
        self.state.truncate(len);
        self.note_seen_again();
    }

    /// Makes `ids` the whole sequence and returns how many of its positions were in the cache already: what it shares
    /// with the sequence so far is not computed again. Random draws begin anew, so that the same prompt and seed give
    /// the same tokens, whatever the sequence held before.
    ///
    /// # Errors
    /// [`Error::EmptyInput`], [`Error::TokenOutOfRange`], [`Error::ContextFull`]; the sequence is then as before.
    pub fn set_prompt(&mut self, ids: &[u32]) -> Result<usize> {
        self.check_tokens(ids, 0)?;
        let shared = self.cached.iter().zip(ids).take_while(|(a, b)| **a == Some(**b)).count();
        // The last position runs again in any case: its logits are needed.
        let reused = shared.min(ids.len() - 1);
        self.truncate(reused);
        self.append(&ids[reused..]);
        self.draws = 0;
        Ok(reused)
    }

    /// Appends tokens; they are computed, in one batch, with the next call that runs the model.
    ///
    /// # Errors
    /// [`Error::EmptyInput`], [`Error::TokenOutOfRange`], [`Error::ContextFull`]; the sequence is then as before.
    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        self.check_tokens(ids, self.len())?;
        self.append(ids);
        Ok(())
    }

    /// Appends `input`, runs the model on everything that is not in the cache yet, and reads out what `readout` asks
    /// for of the positions of `input`.
    ///
    /// # Errors
    /// Input that is empty, out of range, not finite or too long; [`Error::NotFinite`] if the model itself makes a
    /// value that is not a number. The sequence is then as before.
    pub fn extend(&mut self, input: Input<'_>, readout: Readout) -> Result<Output> {
        self.check_input(input)?;
        self.check_head(readout.head)?;
        self.run_pending()?;
        let output = self.state.extend(input, readout)?;
        self.note_cached(input);
        if let Input::Tokens(ids) = input {
            ids.iter().for_each(|id| self.seen.insert(*id));
        }
        Ok(output)
    }

    /// Runs the model on the appended tokens, then samples and feeds back, one token after the other; each goes to
    /// `each` as soon as it is made, and `each` may end the run. The last token belongs to the sequence too, and enters
    /// the cache with whatever comes next.
    ///
    /// # Errors
    /// [`Error::EmptyInput`] if nothing was appended since the last run, and those of [`Sequence::extend`] and of
    /// sampling. After an error the sequence is as before the run.
    pub fn decode(
        &mut self,
        sampling: &Sampling,
        options: &DecodeOptions,
        mut each: impl FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Finish> {
        if self.pending.is_empty() {
            return Err(Error::EmptyInput);
        }
        sampling.validate(self.model.config().vocab_size)?;
        self.check_head(options.readout.head)?;
        if options.max_tokens == 0 {
            return Ok(Finish::Length);
        }
        // A run that filled the context may have left a token that has no position any more.
        self.check_room(self.pending.len(), self.cached.len())?;
        let before = self.cached.len();
        let prompt = std::mem::take(&mut self.pending);
        // The last token needs no position until something follows it.
        let room = self.capacity - before - prompt.len() + 1;
        let inner = &self.model.inner;
        let stop_ids = options.stop_ids.as_deref().unwrap_or(&inner.eos_token_ids);
        let mut made = Vec::new();
        let mut cancelled = false;
        let mut run = Run {
            input: Input::Tokens(&prompt),
            sampling,
            seen: &mut self.seen,
            first_draw: self.draws,
            max_tokens: options.max_tokens.min(room),
            stop_ids,
            readout: options.readout,
        };
        let result = self.state.decode(&mut run, &mut |step| {
            made.push(step.token);
            let flow = each(step);
            cancelled = flow.is_break();
            flow
        });
        if let Err(error) = result {
            self.state.truncate(before);
            self.pending = prompt;
            self.note_seen_again();
            return Err(error);
        }
        let last = made.pop();
        self.draws += made.len() as u64 + u64::from(last.is_some());
        self.cached.extend(prompt.iter().chain(&made).map(|id| Some(*id)));
        self.pending.extend(last);
        Ok(match last {
            Some(id) if stop_ids.contains(&id) => Finish::Stop(id),
            _ if cancelled => Finish::Cancelled,
            _ if options.max_tokens > room => Finish::Context,
            _ => Finish::Length,
        })
    }

    /// Appends `input`, samples one token after it, and leaves it to the caller what comes next: the token does not
    /// become part of the sequence. For models that are fed embedding rows.
    ///
    /// # Errors
    /// Those of [`Sequence::extend`] and of sampling.
    pub fn step(
        &mut self,
        input: Input<'_>,
        sampling: &Sampling,
        readout: Readout,
    ) -> Result<Sampled> {
        self.check_input(input)?;
        self.check_head(readout.head)?;
        sampling.validate(self.model.config().vocab_size)?;
        self.run_pending()?;
        let before = self.state.len();
        let mut sampled = None;
        let mut run = Run {
            input,
            sampling,
            seen: &mut self.seen,
            first_draw: self.draws,
            max_tokens: 1,
            stop_ids: &[],
            readout,
        };
        let result = self.state.decode(&mut run, &mut |step| {
            let copy = |numbers: Option<&[f32]>| numbers.map(<[f32]>::to_vec).unwrap_or_default();
            let output = Output { logits: copy(step.logits), hidden: copy(step.hidden) };
            sampled = Some(Sampled { token: step.token, output });
            ControlFlow::Break(())
        });
        if let Err(error) = result {
            self.state.truncate(before);
            return Err(error);
        }
        self.note_cached(input);
        self.draws += 1;
        sampled.ok_or(Error::NothingToSample)
    }

    /// Makes `seen` the ids that are in the sequence now.
    fn note_seen_again(&mut self) {
        self.seen.clear();
        let known = self.cached.iter().flatten().chain(&self.pending);
        known.for_each(|id| self.seen.insert(*id));
    }

    fn append(&mut self, ids: &[u32]) {
        ids.iter().for_each(|id| self.seen.insert(*id));
        self.pending.extend_from_slice(ids);
    }

    fn run_pending(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.state.extend(Input::Tokens(&self.pending), Readout::NOTHING)?;
            self.cached.extend(self.pending.drain(..).map(Some));
        }
        Ok(())
    }

    fn note_cached(&mut self, input: Input<'_>) {
        match input {
            Input::Tokens(ids) => self.cached.extend(ids.iter().map(|id| Some(*id))),
            Input::Embeddings(_) => {
                let rows = input.positions(self.model.config().hidden_size);
                self.cached.extend(std::iter::repeat_n(None, rows));
            }
        }
    }

    fn check_input(&self, input: Input<'_>) -> Result<()> {
        match input {
            Input::Tokens(ids) => self.check_tokens(ids, self.len()),
            Input::Embeddings(rows) => self.check_embeddings(rows),
        }
    }

    /// Whether `ids` may follow `used` positions.
    fn check_tokens(&self, ids: &[u32], used: usize) -> Result<()> {
        if !self.model.inner.has_embedding {
            return Err(Error::Unavailable {
                what: "input by token id".into(),
                reason: "this model has no embedding of its own: feed it embedding rows".into(),
            });
        }
        if ids.is_empty() {
            return Err(Error::EmptyInput);
        }
        let vocab_size = self.model.config().vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { id: *id, vocab_size });
        }
        self.check_room(ids.len(), used)
    }

    fn check_embeddings(&self, rows: &[f32]) -> Result<()> {
        let width = self.model.config().hidden_size;
        if rows.is_empty() {
            return Err(Error::EmptyInput);
        }
        if !rows.len().is_multiple_of(width) {
            return Err(Error::EmbeddingShape { found: rows.len(), width });
        }
        if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
            let position = self.len() + at / width;
            return Err(Error::NotFinite { what: "embeddings", position });
        }
        self.check_room(rows.len() / width, self.len())
    }

    fn check_room(&self, wanted: usize, used: usize) -> Result<()> {
        if wanted > self.capacity - used.min(self.capacity) {
            return Err(Error::ContextFull { wanted, used, capacity: self.capacity });
        }
        Ok(())
    }

    fn check_head(&self, head: usize) -> Result<()> {
        let heads = self.model.inner.heads;
        if head >= heads { Err(Error::NoSuchHead { head, heads }) } else { Ok(()) }
    }
}
