//! `cargo xtask goldens`: makes the committed references anew, with transformers and qwen_tts, and the models they
//! belong to.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mk_model::synth::{RopeLayout, Spec};
use mk_tts::config::ModelType;
use mk_tts::synth::{Decoder, Spec as TtsSpec};

use crate::parity::python;

/// Make the committed golden files anew (needs Python with torch and transformers, and one with qwen_tts).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only those of speech
    #[arg(long, conflicts_with = "text")]
    speech: bool,
    /// Only those of text
    #[arg(long)]
    text: bool,
    /// Only that of this name
    #[arg(long)]
    name: Option<String>,
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}

/// A synthetic model and the reference that is committed for it.
pub struct Golden {
    /// Name of the file, without its ending.
    pub name: &'static str,
    pub spec: Spec,
    sequences: usize,
    positions: usize,
}

/// Where the references lie, below the repository.
pub const FOLDER: &str = "xtask/goldens";

/// The models: what the published ones look like, only small, and one that is odd in every way a config allows.
pub fn all() -> Vec<Golden> {
    let odd = Spec {
        hidden_size: 75,
        intermediate_size: 201,
        num_hidden_layers: 2,
        num_attention_heads: 6,
        num_key_value_heads: 3,
        head_dim: 42,
        vocab_size: 331,
        rope_theta: 5e5,
        rope_layout: RopeLayout::Parameters,
        tied: false,
        max_shard_bytes: Some(100_000),
        seed: 1,
        ..Spec::tiny()
    };
    vec![
        Golden { name: "tiny", spec: Spec::tiny(), sequences: 12, positions: 16 },
        Golden { name: "odd", spec: odd, sequences: 8, positions: 16 },
    ]
}

/// A synthetic model of speech and the reference that is committed for it.
pub struct SpeechGolden {
    /// Name of the folder.
    pub name: &'static str,
    pub spec: TtsSpec,
    /// Ways to speak, with commas between; all if `None`.
    modes: Option<&'static str>,
    every: usize,
    codec_frames: usize,
}

/// Where the references of speech lie, below the repository.
pub const SPEECH_FOLDER: &str = "crates/mk-tts/tests/goldens";

/// The models of speech: every kind in every way it speaks, one that comes to an end, and odd ones.
pub fn all_speech() -> Vec<SpeechGolden> {
    let tiny = |name, model_type| SpeechGolden {
        name,
        spec: TtsSpec::tiny(model_type),
        modes: None,
        every: 16,
        codec_frames: 0,
    };
    let odd = |name, model_type, modes| SpeechGolden {
        spec: TtsSpec::odd(model_type),
        modes: Some(modes),
        every: 2,
        ..tiny(name, model_type)
    };
    vec![
        SpeechGolden { codec_frames: 700, ..tiny("tiny-base", ModelType::Base) },
        tiny("tiny-custom-voice", ModelType::CustomVoice),
        tiny("tiny-voice-design", ModelType::VoiceDesign),
        SpeechGolden {
            spec: TtsSpec { eos_gain: 5.0, ..TtsSpec::tiny(ModelType::CustomVoice) },
            modes: Some("dialect"),
            ..tiny("ending", ModelType::CustomVoice)
        },
        SpeechGolden {
            codec_frames: 40,
            ..odd("odd-base", ModelType::Base, "icl-streaming,x-vector-whole")
        },
        odd("odd-custom-voice", ModelType::CustomVoice, "instruct,dialect"),
    ]
}

/// Models of speech whose decoders are as wide as the published ones, and so as the CUDA kernels; with few layers, and all
/// else small. They take seconds to write, so only the GPU is held against them.
pub fn wide_speech() -> Vec<SpeechGolden> {
    let wide = |name, size, model_type, modes| {
        let tiny = TtsSpec::tiny(model_type);
        let published = TtsSpec::preset(size, model_type).unwrap_or_else(|| tiny.clone());
        let few = |decoder: Decoder| Decoder {
            num_hidden_layers: 2,
            max_position_embeddings: 2048,
            ..decoder
        };
        let spec = TtsSpec {
            model_size: published.model_size,
            talker: few(published.talker),
            predictor: few(published.predictor),
            ..tiny
        };
        SpeechGolden { name, spec, modes: Some(modes), every: 32, codec_frames: 0 }
    };
    vec![
        wide("wide-06", "0.6b", ModelType::CustomVoice, "streaming,dialect"),
        wide("wide-17", "1.7b", ModelType::VoiceDesign, "whole"),
    ]
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let root = mk_examples::repo_root()?;
    if !args.speech {
        text(&root, args)?;
    }
    if !args.text {
        speech(&root, args)?;
    }
    Ok(())
}

fn speech(root: &Path, args: &Args) -> Result<()> {
    let all = all_speech().into_iter().chain(wide_speech());
    for golden in all.filter(|golden| args.wants(golden.name)) {
        let model = root.join(".mk/goldens").join(golden.name);
        golden.spec.write(&model)?;
        let out = root.join(SPEECH_FOLDER).join(golden.name);
        let recipe = python::SpeechRecipe {
            modes: golden.modes,
            frames: 6,
            every: golden.every,
            codec_frames: golden.codec_frames,
            samples_every: 61,
            ..python::SpeechRecipe::new(&model, &out)
        };
        python::make_speech_reference(root, &recipe)?;
    }
    Ok(())
}

fn text(root: &Path, args: &Args) -> Result<()> {
    for golden in all().into_iter().filter(|golden| args.wants(golden.name)) {
        let model = root.join(".mk/goldens").join(golden.name);
        golden.spec.write(&model)?;
        let recipe = python::Recipe {
            model: &model,
            out: &root.join(FOLDER).join(format!("{}.npz", golden.name)),
            prompt: None,
            sequences: golden.sequences,
            positions: golden.positions,
            greedy: 24,
            device: "cpu",
        };
        python::make_reference(root, &recipe)?;
    }
    if args.name.is_some() {
        return Ok(());
    }
    let tests = root.join("crates/mk-model/tests/goldens");
    let tiny = root.join(".mk/goldens/tiny");
    script(root, "sampling.py", &[Path::new("--out"), &tests.join("sampling.json")])?;
    let chat = tests.join("chat.json");
    script(root, "chat.py", &[Path::new("--model"), &tiny, Path::new("--out"), &chat])
}

fn script(root: &Path, name: &str, args: &[&Path]) -> Result<()> {
    let mut command = Command::new(python::find_python(root)?);
    command.arg(root.join("xtask/reference").join(name)).args(args);
    let status = command.status().with_context(|| name.to_string())?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use mk_model::{Checkpoint, CpuOptions, Device, Isa, Model, ModelOptions, Precision};
    use mk_tts::runtime::{EngineChoice, Runtime, RuntimeOptions};

    use super::*;

    /// Every golden, at both precisions, by every instruction set this machine has.
    #[test]
    fn our_models_are_those_of_transformers() {
        let root = mk_examples::repo_root().unwrap();
        for golden in all() {
            let dir = tempfile::tempdir().unwrap();
            golden.spec.write(dir.path()).unwrap();
            let checkpoint = Checkpoint::open(dir.path()).unwrap();
            let reference = root.join(FOLDER).join(format!("{}.npz", golden.name));
            for precision in [Precision::F32, Precision::Bf16] {
                for isa in Isa::available() {
                    let device = Device::Cpu(CpuOptions { threads: Some(2), isa: Some(isa) });
                    let options = ModelOptions { device, precision };
                    let model = Model::load(&checkpoint, &options).unwrap();
                    println!("{} {}", golden.name, model.describe());
                    crate::parity::check(&model, &reference, precision).unwrap();
                }
            }
        }
    }

    /// A check that cannot fail is none: another model must not pass.
    #[test]
    fn another_model_fails() {
        let golden = &all()[0];
        let dir = tempfile::tempdir().unwrap();
        Spec { seed: 99, ..golden.spec.clone() }.write(dir.path()).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let reference =
            mk_examples::repo_root().unwrap().join(FOLDER).join(format!("{}.npz", golden.name));
        for precision in [Precision::F32, Precision::Bf16] {
            let options = ModelOptions { precision, ..ModelOptions::default() };
            let model = Model::load(&checkpoint, &options).unwrap();
            assert!(crate::parity::check(&model, &reference, precision).is_err());
        }
    }

    /// Every golden of speech, at both precisions.
    #[test]
    fn our_speech_is_that_of_qwen_tts() {
        let folder = mk_examples::repo_root().unwrap().join(SPEECH_FOLDER);
        for golden in all_speech() {
            let dir = tempfile::tempdir().unwrap();
            golden.spec.write(dir.path()).unwrap();
            let reference = folder.join(golden.name);
            let rten = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
            let runtime = Runtime::open(&rten).unwrap();
            // The codec knows one precision only.
            for (precision, runtime) in [(Precision::F32, Some(&runtime)), (Precision::Bf16, None)]
            {
                let options = ModelOptions { precision, ..ModelOptions::default() };
                crate::parity::check_speech(dir.path(), &reference, &options, runtime).unwrap();
            }
        }
    }

    /// The codec on a GPU, by the library that `ORT_DYLIB_PATH` names, beside decoders on the processor; where there is none, it
    /// says so and checks nothing.
    #[test]
    fn our_codec_on_a_gpu_is_that_of_qwen_tts() {
        let Some(library) = std::env::var_os("ORT_DYLIB_PATH") else {
            return println!("not checked: no ORT_DYLIB_PATH");
        };
        let options = RuntimeOptions {
            engine: EngineChoice::OnnxRuntime,
            library: Some(library.into()),
            cuda: Some(0),
            ..RuntimeOptions::default()
        };
        let runtime = match Runtime::open(&options) {
            Err(error @ mk_tts::Error::Cuda { .. }) => return println!("not checked: {error}"),
            runtime => runtime.unwrap(),
        };
        let folder = mk_examples::repo_root().unwrap().join(SPEECH_FOLDER);
        for golden in all_speech() {
            let dir = tempfile::tempdir().unwrap();
            golden.spec.write(dir.path()).unwrap();
            let options = ModelOptions { precision: Precision::F32, ..ModelOptions::default() };
            let reference = folder.join(golden.name);
            crate::parity::check_speech(dir.path(), &reference, &options, Some(&runtime)).unwrap();
        }
    }

    /// The wide ones on a GPU; where there is none, it says so and checks nothing.
    #[cfg(feature = "cuda")]
    #[test]
    fn our_speech_on_a_gpu_is_that_of_qwen_tts() {
        let folder = mk_examples::repo_root().unwrap().join(SPEECH_FOLDER);
        for golden in wide_speech() {
            let dir = tempfile::tempdir().unwrap();
            golden.spec.write(dir.path()).unwrap();
            let reference = folder.join(golden.name);
            let options = ModelOptions { device: Device::Cuda(0), ..ModelOptions::default() };
            let checked = crate::parity::check_speech(dir.path(), &reference, &options, None);
            let no_gpu = |error: &mk_tts::Error| {
                matches!(error, mk_tts::Error::Model(mk_model::Error::Unavailable { .. }))
            };
            match checked {
                Err(error) if error.downcast_ref().is_some_and(no_gpu) => {
                    return println!("not checked: {error}");
                }
                checked => checked.unwrap(),
            }
        }
    }

    #[test]
    fn another_model_of_speech_fails() {
        let golden = &all_speech()[1];
        let dir = tempfile::tempdir().unwrap();
        TtsSpec { seed: 99, ..golden.spec.clone() }.write(dir.path()).unwrap();
        let reference = mk_examples::repo_root().unwrap().join(SPEECH_FOLDER).join(golden.name);
        for precision in [Precision::F32, Precision::Bf16] {
            let options = ModelOptions { precision, ..ModelOptions::default() };
            assert!(crate::parity::check_speech(dir.path(), &reference, &options, None).is_err());
        }
    }
}
