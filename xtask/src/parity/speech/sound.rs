//! The codec and the encoders against the reference's.

use std::path::Path;

use anyhow::{Result, ensure};
use mk_model::checkpoint::TensorFiles;
use mk_tts::codec::{CodecDecoder, CodecEncoder, CodecStream};
use mk_tts::runtime::Runtime;
use mk_tts::speaker::SpeakerEncoder;

use super::compare::largest_error;
use super::reference::{Reference, Utterance, Voice, Waveform};
use crate::parity::compare::relative_error;
use crate::parity::verdict::Gate;

/// Folder of the codec in a checkpoint.
const CODEC: &str = "speech_tokenizer";
/// Absolute errors of samples.
const SAMPLES_LIMIT: f32 = 1e-4;
/// Likewise between ways to cut the same codes into calls.
const CALLS_LIMIT: f32 = 1e-6;
/// Relative error of a speaker's vector.
const VECTOR_LIMIT: f32 = 1e-4;
/// Entries of a codebook that are this much nearer than the next are found whatever rounding does.
const NEAR_TIE: f32 = 1e-4;
/// Frames in a call.
const CALLS: [usize; 4] = [1, 4, 7, 24];

/// Compares everything that sounds.
pub fn compare(dir: &Path, runtime: &Runtime, reference: &Reference) -> Result<Vec<Gate>> {
    println!("codec      {}", runtime.describe());
    let decoder = CodecDecoder::open(&dir.join(CODEC), runtime, None)?;
    let mut gates = Vec::new();
    if let Some(codec) = &reference.codec {
        gates.extend(streaming(&decoder, codec)?);
    }
    let mut worst = (0.0, "");
    for utterance in &reference.utterances {
        let error = spoken(&decoder, utterance, reference.voice.as_ref())?;
        if error >= worst.0 {
            worst = (error, &utterance.name);
        }
    }
    gates.push(Gate {
        what: format!(
            "waveforms of all modes, worst {:.2e} ({}), limit {SAMPLES_LIMIT:.0e}",
            worst.0, worst.1
        ),
        passed: worst.0 <= SAMPLES_LIMIT,
    });
    if let Some(voice) = &reference.voice {
        gates.extend(cloning(dir, runtime, voice)?);
    }
    Ok(gates)
}

/// Random codes in calls of several lengths.
fn streaming(decoder: &CodecDecoder, expected: &Waveform) -> Result<Vec<Gate>> {
    let groups = decoder.groups();
    let mut runs = Vec::new();
    for frames in CALLS {
        let mut stream = decoder.new_stream();
        let calls = expected.codes.chunks(frames * groups).map(|codes| stream.decode(codes));
        runs.push(calls.collect::<Result<Vec<_>, _>>()?.concat());
    }
    let frames = expected.codes.len() / groups;
    let worst = runs.iter().map(|run| error(run, expected)).fold(0.0, f32::max);
    let between = runs.iter().map(|run| largest_error(run, &runs[0])).fold(0.0, f32::max);
    Ok(vec![
        Gate {
            what: format!(
                "waveform of {frames} frames in calls of {CALLS:?}, worst {worst:.2e}, limit {SAMPLES_LIMIT:.0e}"
            ),
            passed: worst <= SAMPLES_LIMIT,
        },
        Gate {
            what: format!("between the calls, worst {between:.2e}, limit {CALLS_LIMIT:.0e}"),
            passed: between <= CALLS_LIMIT,
        },
    ])
}

/// Error of an utterance's sound, after the recording that it continues, if any.
fn spoken(decoder: &CodecDecoder, utterance: &Utterance, voice: Option<&Voice>) -> Result<f32> {
    let mut stream: CodecStream = decoder.new_stream();
    if let (false, Some(voice)) = (utterance.ref_ids.is_empty(), voice) {
        stream.decode(&voice.codes)?;
    }
    Ok(error(&stream.decode(&utterance.wav.codes)?, &utterance.wav))
}

/// Largest error of the samples that the reference kept.
fn error(samples: &[f32], expected: &Waveform) -> f32 {
    let kept: Vec<f32> = samples.iter().copied().step_by(expected.every).collect();
    largest_error(&kept, &expected.samples)
}

/// The vector and the codes of a recording.
fn cloning(dir: &Path, runtime: &Runtime, voice: &Voice) -> Result<Vec<Gate>> {
    let speaker = SpeakerEncoder::open(dir, &TensorFiles::open(dir)?, runtime)?;
    let vector = relative_error(&speaker.embed(&voice.samples)?, &voice.x_vector);
    let encoder = CodecEncoder::open(&dir.join(CODEC), runtime, None)?;
    let codes = encoder.encode(&voice.samples)?;
    ensure!(codes.len() == voice.codes.len(), "{} codes of the recording", codes.len());
    let (mut wrong, mut ties) = (0, 0);
    let groups = encoder.groups();
    for (frame, expected) in voice.codes.chunks_exact(groups).enumerate() {
        let ours = &codes[frame * groups..][..groups];
        // What follows on a code that differs quantizes another remainder.
        if let Some(at) = ours.iter().zip(expected).position(|(a, b)| a != b) {
            match voice.margins[frame * groups + at] < NEAR_TIE {
                true => ties += 1,
                false => wrong += 1,
            }
        }
    }
    Ok(vec![
        Gate {
            what: format!("speaker's vector {vector:.2e}, limit {VECTOR_LIMIT:.0e}"),
            passed: vector <= VECTOR_LIMIT,
        },
        Gate {
            what: format!(
                "codes of a recording: {wrong} of {} frames differ, {ties} more at near-ties",
                voice.codes.len() / groups
            ),
            passed: wrong == 0,
        },
    ])
}
