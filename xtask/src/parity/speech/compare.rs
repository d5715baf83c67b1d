//! Runs the model as the reference was run, and measures how far it is off.

use anyhow::{Context, Result, bail, ensure};
use mk_model::text::Tokenizer;
use mk_tts::config::SpeechSampling;
use mk_tts::talker::prompt::{self, PromptSpec, SpeakerRow};
use mk_tts::talker::{self, Frames, Talker, TextFeed, TextLayout, TextToken};
use mk_tts::text::SpokenToken;

use super::reference::{Errors, Rows, Utterance, Voice};
use crate::parity::compare::relative_error;

/// What came of an utterance.
pub struct Found {
    /// The first of the reference's ids that our tokenizer does not give, by the name of the text.
    pub other_ids: Option<&'static str>,
    /// Largest absolute error of the prompt; infinite where it has another number of rows.
    pub prompt_error: f32,
    /// Greedy codes, `[frames][code_groups]`.
    pub codes: Vec<u32>,
    /// Whether they came to an end by themselves.
    pub ended: bool,
    /// Errors along the reference's codes.
    pub errors: Errors,
}

/// Compares everything that talker and predictor make of an utterance.
pub fn utterance(
    talker: &Talker,
    tokenizer: &Tokenizer,
    expected: &Utterance,
    voice: Option<&Voice>,
) -> Result<Found> {
    let width = talker.config().talker.hidden_size;
    let groups = talker.config().code_groups;
    let (role, spec) = request(talker, expected, voice)?;
    let text = text_tokens(&expected.text_ids)?;
    let frames = expected.codes.len() / groups;

    let mut feed = TextFeed::of(text.clone());
    let prefix = talker.prefix(&role, &spec)?;
    let opening = talker.opening(&spec, &mut feed)?;
    let prompt = [&prefix[..], &opening].concat();
    let follow: Vec<u32> =
        (0..frames).map(|_| feed.next_id(talker.config())).collect::<Result<_, _>>()?;
    let forced = talker.forced(&prompt, &expected.codes, &follow)?;

    // As a user runs it: the constant rows first, then the text with the loop.
    let mut feed = TextFeed::of(text);
    let sequence = talker.sequence(&prefix)?;
    let opening = talker.opening(&spec, &mut feed)?;
    let mut run = Frames::begin(talker, sequence, &opening, &SpeechSampling::greedy())?;
    let (mut codes, mut ended) = (Vec::new(), false);
    // One frame more than the reference's, to see whether it ends where that does.
    while codes.len() < expected.codes.len()
        || (expected.ended && codes.len() == expected.codes.len())
    {
        let Some(frame) = run.next_frame()? else {
            ended = true;
            break;
        };
        run.feed(&frame, feed.next_id(talker.config())?)?;
        codes.extend(frame);
    }

    let reference = &expected.forced;
    Ok(Found {
        other_ids: other_ids(tokenizer, expected)?,
        prompt_error: largest_error(&prompt, &expected.prompt),
        codes,
        ended,
        errors: Errors {
            logits: errors(
                &forced.logits,
                talker.config().talker.vocab_size,
                reference.every,
                &reference.logits,
            )?,
            hidden: errors(&forced.hidden, width, 1, &reference.hidden)?,
            predictor: errors(
                &forced.predictor_logits,
                talker.config().predictor.vocab_size,
                reference.every,
                &reference.predictor,
            )?,
        },
    })
}

/// The ids of the role, and the rest of the prompt but for the text.
fn request(
    talker: &Talker,
    expected: &Utterance,
    voice: Option<&Voice>,
) -> Result<(Vec<u32>, PromptSpec)> {
    let (config, request) = (talker.config(), &expected.request);
    let voices_own = config.speakers.get(&request.speaker);
    ensure!(
        request.speaker.is_empty() || voices_own.is_some(),
        "the model has no speaker {}",
        request.speaker
    );
    let dialect = voices_own.and_then(|speaker| speaker.dialect.as_deref());
    let speaker = match (voices_own, voice) {
        (Some(speaker), _) => SpeakerRow::Id(speaker.id),
        (None, Some(voice)) => SpeakerRow::Vector(voice.x_vector.clone()),
        (None, None) => SpeakerRow::None,
    };
    // The wrapped text of a recording is a role of three tokens, the text, and two that end the turn.
    let reference = match (&expected.ref_ids[..], voice) {
        ([], _) => None,
        ([_, _, _, text @ .., _, _], Some(voice)) => {
            Some(talker::Reference { text: text.into(), codes: voice.codes.clone() })
        }
        _ => bail!("{}: a reference's text, but no voice it is of", expected.name),
    };
    let layout = match request.layout.as_str() {
        "streaming" => TextLayout::Streaming,
        "whole" => TextLayout::Whole,
        other => bail!("{}: no layout {other:?}", expected.name),
    };
    let role = expected.text_ids.get(..3).context("the text has no role")?;
    let spec = PromptSpec {
        instruction: expected.instruct_ids.clone(),
        language: prompt::language_id(config, &request.language, dialect)?,
        speaker,
        reference,
        layout,
    };
    Ok((role.into(), spec))
}

/// The text without the role before it and the five tokens after it.
fn text_tokens(ids: &[u32]) -> Result<Vec<SpokenToken>> {
    let [_, _, _, text @ .., _, _, _, _, _] = ids else { bail!("text_ids are too few") };
    Ok(text
        .iter()
        .map(|id| SpokenToken { token: TextToken { id: *id, text: 0..0 }, syllables: 0.0 })
        .collect())
}

fn other_ids(tokenizer: &Tokenizer, expected: &Utterance) -> Result<Option<&'static str>> {
    let Utterance { request, text_ids, instruct_ids, ref_ids, .. } = expected;
    let text =
        format!("<|im_start|>assistant\n{}<|im_end|>\n<|im_start|>assistant\n", request.text);
    if tokenizer.encode(&text)? != *text_ids {
        return Ok(Some("the text"));
    }
    if prompt::instruction_ids(tokenizer, &request.instruct)? != *instruct_ids {
        return Ok(Some("the instruction"));
    }
    let text = format!("<|im_start|>assistant\n{}<|im_end|>\n", request.ref_text);
    if !request.ref_text.is_empty() && tokenizer.encode(&text)? != *ref_ids {
        return Ok(Some("the recording's text"));
    }
    Ok(None)
}

/// Relative errors by row. Of ours, `width` wide, only every so manieth number is kept.
fn errors(ours: &[f32], width: usize, every: usize, expected: &Rows) -> Result<Vec<f32>> {
    let kept: Vec<f32> =
        ours.chunks_exact(width).flat_map(|row| row.iter().copied().step_by(every)).collect();
    ensure!(
        kept.len() == expected.numbers.len() && width.div_ceil(every) == expected.width,
        "{} numbers in rows of {width}, the reference has {} in rows of {}, every {every}th",
        ours.len(),
        expected.numbers.len(),
        expected.width
    );
    let rows = kept.chunks_exact(expected.width).zip(expected.numbers.chunks_exact(expected.width));
    Ok(rows.map(|(ours, expected)| relative_error(ours, expected)).collect())
}

/// Largest absolute difference; infinite between arrays of different lengths, and for NaN.
pub fn largest_error(found: &[f32], expected: &[f32]) -> f32 {
    if found.len() != expected.len() {
        return f32::INFINITY;
    }
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    errors.fold(0.0, |worst, error| if error.is_nan() { f32::INFINITY } else { worst.max(error) })
}
