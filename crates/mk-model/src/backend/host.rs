//! Decoding for backends that do not sample by themselves.

use std::ops::ControlFlow;

use super::{Input, Readout, Rows, Run, State, Step};
use crate::error::Result;
use crate::sampling::Sampler;

/// [`State::decode`] in terms of [`State::extend`]: logits come to the host for every token, and the sampler runs
/// there.
///
/// # Errors
/// Those of [`State::extend`] and of [`Sampler::sample`].
pub fn decode_on_host(
    state: &mut dyn State,
    vocab_size: usize,
    run: &mut Run<'_>,
    each: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let mut sampler = Sampler::new(run.sampling, vocab_size)?;
    let hidden = if run.readout.hidden == Rows::None { Rows::None } else { Rows::Last };
    let readout = Readout { logits: Rows::Last, hidden, head: run.readout.head };
    let mut output = state.extend(run.input, readout)?;
    for draw in 0..run.max_tokens as u64 {
        let token = sampler.sample(&output.logits, run.seen, run.first_draw + draw)?;
        run.seen.insert(token);
        let step = Step {
            token,
            logits: (run.readout.logits != Rows::None).then_some(&output.logits),
            hidden: (hidden != Rows::None).then_some(&output.hidden),
        };
        let flow = each(step);
        let last = draw + 1 == run.max_tokens as u64;
        if flow.is_break() || last || run.stop_ids.contains(&token) {
            break;
        }
        output = state.extend(Input::Tokens(&[token]), readout)?;
    }
    Ok(())
}
