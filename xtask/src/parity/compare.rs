//! Runs the model over the reference's sequences and measures how far it is off.

use std::ops::ControlFlow;

use anyhow::{Context, Result, ensure};
use mk_model::sampling::argmax;
use mk_model::{DecodeOptions, Input, Model, Readout, Sampling, Sequence};

use super::reference::{Greedy, Reference};

/// Errors of teacher-forced logits, `|ours - reference| / |reference|` in Euclidean norms over the vocabulary.
#[derive(Debug, Default)]
pub struct LogitErrors {
    /// Each position as part of one batch, sequence after sequence.
    pub batched: Vec<f32>,
    /// The same positions of the first sequences, fed one by one.
    pub stepwise: Vec<f32>,
    /// The last position of whole sequences, and of beginnings of the first, with nothing else read out: as a prompt is
    /// prefilled.
    pub prefilled: Vec<f32>,
    /// Largest absolute error of any logit.
    pub max_abs: f32,
    /// Positions whose most likely token is the reference's.
    pub same_top: usize,
}

/// Sequences that are also fed token by token, which takes much longer than in a batch.
const STEPWISE: usize = 2;

/// Compares the logits of every sequence.
pub fn logits(model: &Model, reference: &Reference) -> Result<LogitErrors> {
    let vocab = reference.logits_vocab.unwrap_or_default();
    let ours = model.config().vocab_size;
    ensure!(
        vocab == ours,
        "the reference's logits are for a vocabulary of {vocab}, the model's is {ours}"
    );
    let mut errors = LogitErrors::default();
    let mut sequence = model.sequence()?;
    reference.for_each_logits(|i, expected| {
        let ids = &reference.ids[i];
        sequence.reset();
        let found = sequence
            .extend(Input::Tokens(ids), Readout::ALL_LOGITS)
            .with_context(|| format!("sequence {i} of the reference"))?
            .logits;
        for (found, expected) in found.chunks_exact(vocab).zip(expected.chunks_exact(vocab)) {
            errors.batched.push(relative_error(found, expected));
            errors.same_top += usize::from(argmax(found) == argmax(expected));
            let abs = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            errors.max_abs = abs.fold(errors.max_abs, f32::max);
        }
        let beginnings = (1..).map(|n| 4usize.pow(n)).take_while(|len| i == 0 && *len < ids.len());
        for len in beginnings.chain([ids.len()]) {
            sequence.reset();
            let prompt = sequence.extend(Input::Tokens(&ids[..len]), Readout::LAST_LOGITS)?;
            let expected = &expected[(len - 1) * vocab..len * vocab];
            errors.prefilled.push(relative_error(&prompt.logits, expected));
        }
        if i < STEPWISE {
            sequence.reset();
            for (id, expected) in ids.iter().zip(expected.chunks_exact(vocab)) {
                let step = sequence.extend(Input::Tokens(&[*id]), Readout::LAST_LOGITS)?;
                errors.stepwise.push(relative_error(&step.logits, expected));
            }
        }
        Ok(())
    })?;
    Ok(errors)
}

/// In f64, so that the measure adds nothing to what it measures. NaN compares as infinitely wrong.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    let norm = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
    let difference =
        norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let size = norm(&mut expected.iter().map(|x| f64::from(*x)));
    let error = (difference / size.max(f64::MIN_POSITIVE)) as f32;
    if error.is_nan() { f32::INFINITY } else { error }
}

/// One greedy token beside the reference's.
#[derive(Debug)]
pub struct GreedyRow {
    pub reference: u32,
    pub ours: u32,
    /// How far, in our logits, the reference's token is below ours; 0 where they are the same.
    pub margin: f32,
}

/// Decodes greedily along the reference's text: each token is the most likely one after the *reference's* tokens
/// before it, so that a near-tie decided the other way does not hide what follows.
pub fn greedy(model: &Model, reference: &Reference, greedy: &Greedy) -> Result<Vec<GreedyRow>> {
    let prompt = &reference.ids[0][..greedy.prompt_len];
    let mut sequence: Sequence = model.sequence()?;
    let mut logits = sequence.extend(Input::Tokens(prompt), Readout::LAST_LOGITS)?.logits;
    let mut rows = Vec::new();
    for id in &greedy.ids {
        let ours = argmax(&logits).context("no logits")?;
        let expected =
            *logits.get(*id as usize).context("the reference's greedy ids are out of range")?;
        rows.push(GreedyRow { reference: *id, ours, margin: logits[ours as usize] - expected });
        logits = sequence.extend(Input::Tokens(&[*id]), Readout::LAST_LOGITS)?.logits;
    }
    Ok(rows)
}

/// Greedy decoding as a user runs it: one call, tokens fed back, no stop.
pub fn free_run(model: &Model, reference: &Reference, greedy: &Greedy) -> Result<Vec<u32>> {
    let mut sequence = model.sequence()?;
    sequence.set_prompt(&reference.ids[0][..greedy.prompt_len])?;
    let options = DecodeOptions {
        max_tokens: greedy.ids.len(),
        stop_ids: Some(Vec::new()),
        ..DecodeOptions::default()
    };
    let mut ids = Vec::new();
    sequence.decode(&Sampling::default(), &options, |step| {
        ids.push(step.token);
        ControlFlow::Continue(())
    })?;
    Ok(ids)
}
