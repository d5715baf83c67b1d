//! Speech with its decoders on a GPU, against the CPU and the host's sampler, on random models of the kernels' dimensions.
//! Where there is no GPU that the kernels run on, each test says so and checks nothing. What qwen_tts makes of such models
//! is in a test of xtask (`goldens.rs`).

#![cfg(feature = "cuda")]

use std::thread;

use mk_model::checkpoint::TensorFiles;
use mk_model::rng::uniform;
use mk_model::sampling::{Sampler, Seen};
use mk_model::{Device, Error as ModelError, ModelOptions, Precision};
use mk_tts::config::{ModelType, SpeechSampling, TtsConfig};
use mk_tts::guard::GuardOptions;
use mk_tts::runtime::{EngineChoice, RuntimeOptions};
use mk_tts::synth::{Decoder, Spec};
use mk_tts::talker::{Forced, Frames, Talker};
use mk_tts::{Error, SpeakOptions, Tts, TtsOptions};

const FRAMES: usize = 12;
/// Rows before the first frame, and ids of the text that goes with the frames.
const ROWS: usize = 21;
const TEXT_IDS: usize = 600;

/// The decoders as wide as in the published model of this size, with two layers each; the rest is small.
fn spec(size: &str) -> Spec {
    let published = Spec::preset(size, ModelType::CustomVoice).unwrap();
    let few = |decoder: Decoder| Decoder {
        num_hidden_layers: 2,
        max_position_embeddings: 2048,
        ..decoder
    };
    Spec {
        model_size: published.model_size,
        talker: few(published.talker),
        predictor: few(published.predictor),
        ..Spec::tiny(ModelType::CustomVoice)
    }
}

fn written(spec: &Spec) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    spec.write(dir.path()).unwrap();
    dir
}

fn cuda() -> ModelOptions {
    ModelOptions { device: Device::Cuda(0), ..ModelOptions::default() }
}

fn load(dir: &tempfile::TempDir, options: &ModelOptions) -> mk_tts::Result<Talker> {
    let (dir, config) = (dir.path(), TtsConfig::open(dir.path()).unwrap());
    Talker::load(dir, &config, &TensorFiles::open(dir).unwrap(), options)
}

/// `None`, and a word about it, where there is no GPU for the kernels.
fn on_gpu<T>(load: impl FnOnce() -> mk_tts::Result<T>) -> Option<T> {
    match load() {
        Ok(loaded) => Some(loaded),
        Err(Error::Model(ModelError::Unavailable { what, reason }))
            if what == "the CUDA backend" =>
        {
            println!("not checked: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Rows as large as embeddings are, f32 `[ROWS, width]`; none of them is a bf16 number.
fn rows(width: usize) -> Vec<f32> {
    (0..ROWS * width).map(|i| 2.0 * uniform(5, i as u128) - 1.0).collect()
}

fn text() -> Vec<u32> {
    (0..FRAMES).map(|i| (uniform(6, i as u128) * TEXT_IDS as f32) as u32).collect()
}

/// Frames as a speech makes them, and what both decoders say along them.
fn speak(talker: &Talker, sampling: &SpeechSampling) -> (Vec<u32>, Forced) {
    let width = talker.config().talker.hidden_size;
    let rows = rows(width);
    // The rows are cut as `Talker::forced` cuts them, so that both compute the same.
    let (before, last) = rows.split_at((ROWS - 1) * width);
    let sequence = talker.sequence(before).unwrap();
    let mut frames = Frames::begin(talker, sequence, last, sampling).unwrap();
    let mut codes = Vec::new();
    for id in text() {
        let Some(frame) = frames.next_frame().unwrap() else { break };
        frames.feed(&frame, id).unwrap();
        codes.extend(frame);
    }
    let forced = talker.forced(&rows, &codes, &text()).unwrap();
    (codes, forced)
}

fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    let norm = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| x * x).sum::<f32>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied())
}

/// Mean and worst of the rows' errors.
fn errors(found: &[f32], expected: &[f32], width: usize) -> [f32; 2] {
    assert_eq!(found.len(), expected.len());
    let rows = found.chunks_exact(width).zip(expected.chunks_exact(width));
    let errors: Vec<f32> = rows.map(|(found, expected)| relative_error(found, expected)).collect();
    let mean = errors.iter().sum::<f32>() / errors.len() as f32;
    [mean, errors.into_iter().fold(0.0, f32::max)]
}

/// The talker's logits and hidden states, fed rows, and the predictor's logits, out of all its heads.
#[test]
fn along_given_codes_the_decoders_say_what_the_cpu_says() {
    for size in ["0.6b", "1.7b"] {
        let dir = written(&spec(size));
        let Some(talker) = on_gpu(|| load(&dir, &cuda())) else { return };
        println!("{size}: {}", talker.describe());
        let cpu = |precision| ModelOptions { precision, ..ModelOptions::default() };
        let (codes, found) = speak(&talker, &SpeechSampling::greedy());
        let config = talker.config();
        let rows = rows(config.talker.hidden_size);
        let [exact, rounded] = [Precision::F32, Precision::Bf16].map(|precision| {
            load(&dir, &cpu(precision)).unwrap().forced(&rows, &codes, &text()).unwrap()
        });
        assert_eq!(found.logits.len(), (codes.len() / config.code_groups + 1) * 3072);
        for (what, width, pick) in [
            ("logits", 3072, (|f: &Forced| &f.logits) as fn(&Forced) -> &Vec<f32>),
            ("hidden states", config.talker.hidden_size, |f| &f.hidden),
            ("predictor's logits", 2048, |f| &f.predictor_logits),
        ] {
            let ours = errors(pick(&found), pick(&exact), width);
            let theirs = errors(pick(&rounded), pick(&exact), width);
            let [mean, worst] = ours;
            println!("{what}: mean {mean:.2e}, worst {worst:.2e}; the CPU's bf16 {theirs:?}");
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                assert!(ours < 2.0 * theirs + 1e-3, "{what}: {ours} {theirs}");
            }
        }
    }
}

/// All that speech samples by: greedy with a penalty, the published settings, and settings of every kind.
fn settings() -> Vec<SpeechSampling> {
    let published = SpeechSampling::from_json("{}").unwrap();
    let mut mixed = published.clone();
    mixed.talker.top_p = 0.8;
    mixed.talker.repetition_penalty = 1.3;
    mixed.talker.suppress = (0..2048).step_by(3).collect();
    mixed.predictor.min_p = 0.05;
    mixed.predictor.temperature = 1.5;
    mixed.predictor.top_k = 64;
    // What the device leaves to the host.
    let mut all = published.clone();
    all.talker.top_k = 0;
    all.predictor.top_k = 100;
    [SpeechSampling::greedy(), published.clone().with_seed(1), published.with_seed(2)]
        .into_iter()
        .chain([mixed.with_seed(3), all.with_seed(4)])
        .collect()
}

#[test]
fn codes_are_those_that_the_host_samples_to_the_bit() {
    for size in ["0.6b", "1.7b"] {
        let dir = written(&spec(size));
        let Some(talker) = on_gpu(|| load(&dir, &cuda())) else { return };
        let config = talker.config();
        let (vocab, groups) = (config.talker.vocab_size, config.code_groups);
        let codes = config.predictor.vocab_size;
        for sampling in settings() {
            let (found, forced) = speak(&talker, &sampling);
            assert_eq!(found.len(), FRAMES * groups, "the end comes with no code in these models");
            let mut seen = Seen::new(vocab);
            let mut predictor = Sampler::new(&sampling.predictor, codes).unwrap();
            let mut draws = 0;
            for (number, frame) in found.chunks_exact(groups).enumerate() {
                let mut talkers = sampling.talker.clone();
                talkers.suppress.extend(config.suppressed());
                // The end may not come before the third frame.
                talkers.suppress.extend((number < 2).then_some(config.codec_ids.eos));
                let mut sampler = Sampler::new(&talkers, vocab).unwrap();
                let logits = &forced.logits[number * vocab..][..vocab];
                let first = sampler.sample(logits, &seen, number as u64).unwrap();
                assert_eq!(frame[0], first, "frame {number} of {sampling:?}");
                seen.insert(first);
                // The predictor's sequence begins anew with every frame, its draws do not.
                let mut seen = Seen::new(codes);
                for (group, found) in frame.iter().enumerate().skip(1) {
                    let at = (number * (groups - 1) + group - 1) * codes;
                    let logits = &forced.predictor_logits[at..][..codes];
                    let code = predictor.sample(logits, &seen, draws).unwrap();
                    assert_eq!(*found, code, "code {group} of frame {number}, {sampling:?}");
                    seen.insert(code);
                    draws += 1;
                }
            }
        }
    }
}

/// From the text to the sound: the same again, and the same beside each other.
#[test]
fn speeches_are_the_same_again_and_do_not_disturb_each_other() {
    let dir = written(&spec("0.6b"));
    let runtime = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
    let options = TtsOptions { model: cuda(), runtime, ..TtsOptions::default() };
    let Some(tts) = on_gpu(|| Tts::load(dir.path(), &options)) else { return };
    let voice = tts.voice("ryan").unwrap();
    let options = |seed| SpeakOptions {
        language: "english".into(),
        guard: GuardOptions { max_frames: Some(30), ..GuardOptions::none() },
        seed,
        ..SpeakOptions::default()
    };
    let speak = |seed| {
        let speech = tts.speak("Hello world, this is a test.", &voice, &options(seed)).unwrap();
        speech.flat_map(|chunk| chunk.unwrap().samples).collect::<Vec<f32>>()
    };
    let alone: Vec<Vec<f32>> = (0..3).map(speak).collect();
    assert_eq!(alone, (0..3).map(speak).collect::<Vec<_>>());
    assert!(alone[0] != alone[1] && alone[0].len() == 30 * tts.samples_per_frame());
    let speak = &speak;
    let together: Vec<Vec<f32>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || speak(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}
