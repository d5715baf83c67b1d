//! Text from a sequence: tokens decoded as they come, stop strings watched for.

use std::ops::ControlFlow;

use crate::error::Result;
use crate::sampling::Sampling;
use crate::sequence::{DecodeOptions, Finish, Sequence};
use crate::stop::StopStrings;
use crate::text::Tokenizer;

/// What text to make.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextOptions {
    /// How to choose tokens.
    pub sampling: Sampling,
    /// How many at most, and what ends them.
    pub decode: DecodeOptions,
    /// Strings that end the text; they do not become part of it.
    pub stop: Vec<String>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// All tokens, the one that ended the run included.
    pub ids: Vec<u32>,
    /// Their text, without special tokens, up to the stop string if there was one.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// Goes on with `sequence`, which must have tokens to run, and hands each piece of text to `each` as soon as it is
/// certain: pieces are whole characters, and none of them is part of a stop string. `each` may end the run.
///
/// # Errors
/// Those of [`Sequence::decode`], and of [`StopStrings::new`].
pub fn generate(
    sequence: &mut Sequence,
    tokenizer: &Tokenizer,
    options: &TextOptions,
    mut each: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generated> {
    let mut stop = StopStrings::new(options.stop.iter().cloned())?;
    let mut decoder = tokenizer.stream(true);
    let mut made = Generated { ids: Vec::new(), text: String::new(), finish: Finish::Length };
    let mut stopped = false;
    let finish = sequence.decode(&options.sampling, &options.decode, |step| {
        made.ids.push(step.token);
        let piece = stop.push(&decoder.push(step.token));
        stopped = piece.stopped;
        let flow = hand_out(&piece.text, &mut made.text, &mut each);
        if stopped { ControlFlow::Break(()) } else { flow }
    })?;
    made.finish = if stopped { Finish::StopString } else { finish };
    if !stopped && made.finish != Finish::Cancelled {
        // What was held back because more might have followed. The run is over, so there is nothing left to break.
        let rest = stop.push(&decoder.finish());
        let text = rest.text + &stop.finish();
        let _ = hand_out(&text, &mut made.text, &mut each);
        if rest.stopped {
            made.finish = Finish::StopString;
        }
    }
    Ok(made)
}

fn hand_out(
    piece: &str,
    text: &mut String,
    each: &mut impl FnMut(&str) -> ControlFlow<()>,
) -> ControlFlow<()> {
    if piece.is_empty() {
        return ControlFlow::Continue(());
    }
    text.push_str(piece);
    each(piece)
}
