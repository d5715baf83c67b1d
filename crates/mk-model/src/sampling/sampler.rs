//! One set of parameters at work, with the memory it needs.

use super::params::{Sampling, refuse};
use super::seen::Seen;
use super::select::{self, CHUNK, Candidate};
use crate::error::{Error, Result};
use crate::rng;

/// Chooses tokens by one [`Sampling`] over one vocabulary. After construction it allocates nothing.
///
/// It keeps no state from one call to the next: the same logits, set of seen ids and draw give the same token.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    vocab_size: usize,
    /// Logits after penalty and suppression; empty while both are off.
    edited: Vec<f32>,
    maxima: Vec<f32>,
    scratch: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for `vocab_size` logits.
    ///
    /// # Errors
    /// Those of [`Sampling::validate`].
    pub fn new(sampling: &Sampling, vocab_size: usize) -> Result<Self> {
        sampling.validate(vocab_size)?;
        let edits = sampling.repetition_penalty != 1.0 || !sampling.suppress.is_empty();
        let chunks = vocab_size.div_ceil(CHUNK);
        Ok(Self {
            sampling: sampling.clone(),
            vocab_size,
            edited: vec![0.0; if edits { vocab_size } else { 0 }],
            maxima: vec![0.0; chunks],
            scratch: vec![0.0; chunks],
            candidates: Vec::with_capacity(if sampling.is_greedy() { 1 } else { vocab_size }),
        })
    }

    /// The token of draw number `draw`. Minus infinity among the logits means "never".
    ///
    /// # Errors
    /// - [`Error::NotFinite`] where a logit is NaN or plus infinity; its position is `draw`.
    /// - [`Error::NothingToSample`] where every logit is minus infinity or suppressed.
    /// - [`Error::Sampling`] where `logits` or `seen` are not of this vocabulary.
    pub fn sample(&mut self, logits: &[f32], seen: &Seen, draw: u64) -> Result<u32> {
        self.filter(logits, seen, draw)?;
        let total = select::units(&self.candidates);
        // u has 24 bits, so this is floor(u * total) exactly, and below total.
        let u = (rng::uniform(self.sampling.seed, draw.into()) * (1 << 24) as f32) as u128;
        let passed = ((u * u128::from(total)) >> 24) as u64;
        let chosen = select::crossing(&mut self.candidates, passed + 1, |c| c.id().into());
        Ok(self.candidates[chosen].id())
    }

    /// The probabilities by which [`Sampler::sample`] draws, one for each id: for tests and for looking into a model.
    /// Greedy sampling is certain of its id.
    ///
    /// # Errors
    /// Those of [`Sampler::sample`].
    pub fn probabilities(&mut self, logits: &[f32], seen: &Seen) -> Result<Vec<f32>> {
        self.filter(logits, seen, 0)?;
        let total = select::units(&self.candidates) as f64;
        let mut probabilities = vec![0.0; self.vocab_size];
        for candidate in &self.candidates {
            let units = select::units(std::slice::from_ref(candidate));
            probabilities[candidate.id() as usize] = (units as f64 / total) as f32;
        }
        Ok(probabilities)
    }

    /// Leaves in `candidates` the ids that may be drawn: never none, and none of zero weight.
    fn filter(&mut self, logits: &[f32], seen: &Seen, draw: u64) -> Result<()> {
        self.check(logits, seen, draw)?;
        let logits = if self.edited.is_empty() {
            logits
        } else {
            edit(&mut self.edited, logits, seen, &self.sampling);
            &self.edited
        };
        for (max, chunk) in self.maxima.iter_mut().zip(logits.chunks(CHUNK)) {
            *max = select::maximum(chunk);
        }
        let max = select::maximum(&self.maxima);
        if max == f32::NEG_INFINITY {
            return Err(Error::NothingToSample);
        }

        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let candidates = &mut self.candidates;
        if self.sampling.is_greedy() {
            candidates.clear();
            let best = select::first_index(logits, &self.maxima, max);
            candidates.extend(best.map(Candidate::certain));
            return Ok(());
        }
        let bound = select::lower_bound(&self.maxima, top_k, &mut self.scratch);
        let scale = (max, temperature);
        select::gather(logits, &self.maxima, bound, scale, candidates);
        select::keep_top_k(candidates, top_k);
        if top_p < 1.0 {
            select::keep_top_p(candidates, top_p, scale);
        }
        if min_p > 0.0 {
            candidates.retain(|c| c.weight >= min_p);
        }
        Ok(())
    }

    fn check(&self, logits: &[f32], seen: &Seen, draw: u64) -> Result<()> {
        if logits.len() != self.vocab_size {
            return Err(refuse("logits", logits.len(), "expected one for each id"));
        }
        if seen.vocab_size() != self.vocab_size {
            return Err(refuse("seen", seen.vocab_size(), "expected a set over this vocabulary"));
        }
        // No early exit: this form is vectorised, and the answer is nearly always no.
        let illegal = |x: f32| x.is_nan() || x == f32::INFINITY;
        if logits.iter().fold(false, |found, x| found | illegal(*x)) {
            let position = usize::try_from(draw).unwrap_or(usize::MAX);
            return Err(Error::NotFinite { what: "logits", position });
        }
        Ok(())
    }
}

/// The id of the largest logit, the lowest of several; `None` where every logit is NaN or there is none.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let max = select::maximum(logits);
    let first = logits.iter().position(|x| *x == max)?;
    u32::try_from(first).ok()
}

/// Copies `logits` with the repetition penalty and the suppression done.
fn edit(edited: &mut [f32], logits: &[f32], seen: &Seen, sampling: &Sampling) {
    edited.copy_from_slice(logits);
    let penalty = sampling.repetition_penalty;
    if penalty != 1.0 {
        for id in seen.iter() {
            let logit = &mut edited[id as usize];
            *logit = if *logit > 0.0 { (*logit / penalty).min(f32::MAX) } else { *logit * penalty };
        }
    }
    for id in &sampling.suppress {
        edited[*id as usize] = f32::NEG_INFINITY;
    }
}
