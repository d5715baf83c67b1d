//! Our own figures.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use mk_model::{DecodeOptions, Input, Model, Readout, Rows, Sampling};

use super::report::{Decode, Prefill};

/// Milliseconds a token, at each position: the median over `tokens` tokens as the caller sees them arrive.
pub fn decode(
    model: &Model,
    positions: &[usize],
    tokens: usize,
    sampling: &Sampling,
) -> Result<Vec<Decode>> {
    let mut sequence = model.sequence()?;
    let mut rows = Vec::new();
    for position in positions {
        // Positions come in ascending order, so the cache only grows.
        let missing = position.saturating_sub(sequence.cached_len());
        if missing > 0 {
            let ids = ids(missing, model.config().vocab_size);
            sequence.truncate(sequence.cached_len());
            sequence.extend(Input::Tokens(&ids), Readout::NOTHING)?;
        }
        sequence.push(&[1])?;
        let options = DecodeOptions {
            max_tokens: tokens + 1,
            stop_ids: Some(Vec::new()),
            ..DecodeOptions::default()
        };
        let mut times = Vec::new();
        let mut last = None;
        sequence.decode(sampling, &options, |_| {
            let now = Instant::now();
            if let Some(before) = last.replace(now) {
                times.push(now.duration_since(before).as_secs_f64() * 1e3);
            }
            ControlFlow::Continue(())
        })?;
        let mean_ms = times.iter().sum::<f64>() / times.len() as f64;
        let ms_per_tok = median(&mut times);
        let tok_s = 1e3 / ms_per_tok;
        rows.push(Decode { position: *position, ms_per_tok, mean_ms: Some(mean_ms), tok_s });
    }
    Ok(rows)
}

/// Milliseconds to run prompts of these lengths from an empty cache, logits of the last position included.
pub fn prefill(model: &Model, lengths: &[usize], repeats: usize) -> Result<Vec<Prefill>> {
    let mut sequence = model.sequence()?;
    let readout = Readout { logits: Rows::Last, ..Readout::NOTHING };
    let mut rows = Vec::new();
    for length in lengths {
        let ids = ids(*length, model.config().vocab_size);
        let mut times = Vec::new();
        for _ in 0..repeats {
            sequence.reset();
            let start = Instant::now();
            sequence.extend(Input::Tokens(&ids), readout)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let ms = median(&mut times);
        rows.push(Prefill { tokens: *length, ms, tok_s: 1e3 * *length as f64 / ms });
    }
    Ok(rows)
}

/// Ids all over the vocabulary; which they are makes no difference to the time.
pub fn ids(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// The middle of the sorted numbers.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
