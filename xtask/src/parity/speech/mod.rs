//! Parity of speech: is this the model that qwen_tts runs?

mod compare;
mod reference;
mod sound;

use std::path::Path;

use anyhow::Result;
use mk_model::checkpoint::TensorFiles;
use mk_model::text::Tokenizer;
use mk_model::{ModelOptions, Precision};
use mk_tts::config::TtsConfig;
use mk_tts::runtime::Runtime;
use mk_tts::talker::Talker;

use super::verdict::{Gate, spread};
use compare::Found;
use reference::{Errors, Reference, Utterance};

/// Relative errors along given codes at f32.
const FORCED_LIMIT: f32 = 1e-4;
/// Absolute errors of the prompt's rows at f32.
const PROMPT_LIMIT: f32 = 1e-5;

/// Holds the checkpoint in `dir` against everything that the reference folder has; what sounds, too, where there is a
/// `runtime` for it.
pub fn compare(
    dir: &Path,
    folder: &Path,
    options: &ModelOptions,
    runtime: Option<&Runtime>,
) -> Result<Vec<Gate>> {
    let reference = Reference::open(folder)?;
    let config = TtsConfig::open(dir)?;
    let talker = Talker::load(dir, &config, &TensorFiles::open(dir)?, options)?;
    let tokenizer = Tokenizer::from_dir(dir)?;
    println!(
        "model      {}\nbackend    {}\nreference  {}\n",
        dir.display(),
        talker.describe(),
        folder.display()
    );
    println!(
        "{:<16} {:>6} {:>7} {:>9} {:>9} {:>9} {:>9}  codes",
        "mode", "rows", "frames", "prompt", "logits", "hidden", "predictor"
    );
    let mut gates = Vec::new();
    for expected in &reference.utterances {
        let found = compare::utterance(&talker, &tokenizer, expected, reference.voice.as_ref())?;
        print_row(&config, expected, &found);
        gates.extend(judge(expected, &found, options.precision));
    }
    println!();
    if let Some(runtime) = runtime {
        gates.extend(sound::compare(dir, runtime, &reference)?);
    }
    Ok(gates)
}

fn judge(expected: &Utterance, found: &Found, precision: Precision) -> Vec<Gate> {
    let name = &expected.name;
    let mut gates = vec![Gate {
        what: match found.other_ids {
            None => format!("{name}: ids of all texts"),
            Some(which) => format!("{name}: ids of {which} are others"),
        },
        passed: found.other_ids.is_none(),
    }];
    match precision {
        Precision::F32 => {
            gates.push(Gate {
                what: format!(
                    "{name}: prompt, worst {:.2e}, limit {PROMPT_LIMIT:.0e}",
                    found.prompt_error
                ),
                passed: found.prompt_error <= PROMPT_LIMIT,
            });
            let worst = forced(&found.errors, &expected.yardstick)
                .map(|(_, ours, _)| spread(ours).worst)
                .fold(0.0, f32::max);
            gates.push(Gate {
                what: format!(
                    "{name}: f32 along given codes, worst {worst:.2e}, limit {FORCED_LIMIT:.0e}"
                ),
                passed: worst <= FORCED_LIMIT,
            });
            let same = same_codes(expected, found);
            let total = expected.codes.len();
            gates.push(Gate {
                what: match expected.ended {
                    true => format!(
                        "{name}: {same} of {total} greedy codes, end there: {}",
                        found.ended
                    ),
                    false => format!("{name}: {same} of {total} greedy codes"),
                },
                passed: found.codes == expected.codes && found.ended == expected.ended,
            });
        }
        Precision::Bf16 => {
            for (what, ours, theirs) in forced(&found.errors, &expected.yardstick) {
                let (ours, theirs) = (spread(ours), spread(theirs));
                gates.push(Gate {
                    what: format!(
                        "{name}: bf16 {what}, mean {:.2e}, worst {:.2e}; qwen_tts' bf16: {:.2e}, {:.2e}",
                        ours.mean, ours.worst, theirs.mean, theirs.worst
                    ),
                    passed: ours.mean <= theirs.mean && ours.worst <= theirs.worst,
                });
            }
        }
    }
    gates
}

/// What is measured along given codes, with our errors and those of the reference's bf16 run.
fn forced<'a>(
    ours: &'a Errors,
    theirs: &'a Errors,
) -> impl Iterator<Item = (&'static str, &'a [f32], &'a [f32])> {
    [
        ("talker's logits", &ours.logits[..], &theirs.logits[..]),
        ("hidden states", &ours.hidden, &theirs.hidden),
        ("predictor's logits", &ours.predictor, &theirs.predictor),
    ]
    .into_iter()
}

fn same_codes(expected: &Utterance, found: &Found) -> usize {
    expected.codes.iter().zip(&found.codes).take_while(|(a, b)| a == b).count()
}

fn print_row(config: &TtsConfig, expected: &Utterance, found: &Found) {
    println!(
        "{:<16} {:>6} {:>7} {:>9.1e} {:>9.1e} {:>9.1e} {:>9.1e}  {} of {}{}",
        expected.name,
        expected.prompt.len() / config.talker.hidden_size,
        expected.codes.len() / config.code_groups,
        found.prompt_error,
        spread(&found.errors.logits).worst,
        spread(&found.errors.hidden).worst,
        spread(&found.errors.predictor).worst,
        same_codes(expected, found),
        expected.codes.len(),
        if expected.ended { ", then the end" } else { "" },
    );
}
