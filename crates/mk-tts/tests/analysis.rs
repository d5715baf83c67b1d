//! What cloning a voice needs, held against the qwen_tts package: mel spectrogram, speaker encoder, codec encoder.
//!
//! The goldens are those of the small synthetic checkpoint (`cargo xtask synth DIR --tts base`), made by
//! `xtask/reference/tts_analysis.py`. Another
//! checkpoint is compared when `MK_TTS_ANALYSIS` names its directory and `MK_TTS_ANALYSIS_GOLDEN` the file that the
//! script made for it. ONNX Runtime is compared, too, where `ORT_DYLIB_PATH` says where it is.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use mk_tts::codec::CodecEncoder;
use mk_tts::config::ModelType;
use mk_tts::mk_model::checkpoint::TensorFiles;
use mk_tts::runtime::{EngineChoice, Runtime, RuntimeOptions};
use mk_tts::speaker::SpeakerEncoder;
use mk_tts::speaker::mel::{BANDS, MelSpectrogram};
use mk_tts::synth::Spec;
use npyz::NpyFile;
use tempfile::TempDir;
use zip::ZipArchive;

/// The script's sound, made of the same integers.
fn sound(samples: usize) -> Vec<f32> {
    let triangle = |i: i64, period: i64, height: i64| {
        (i % period * 2 - period).abs() * height / period - height / 2
    };
    (0..samples as i64)
        .map(|i| {
            let pitch = 90 + i / 4000 * 37 % 130;
            let total = triangle(i, pitch, 16000) + triangle(i, 53, 4000) + triangle(i, 17, 3000);
            let swell = (i % 9001 * 2 - 9001).abs();
            let noise = (i * 2_654_435_761 % (1 << 32)) >> 22;
            ((total * swell).div_euclid(9001) + noise) as f32 / 32768.0
        })
        .collect()
}

/// A checkpoint and what the reference makes of it.
struct Reference {
    dir: PathBuf,
    /// Holds the directory of a checkpoint that was made for the test.
    _made: Option<TempDir>,
    golden: ZipArchive<BufReader<File>>,
}

impl Reference {
    fn new(dir: PathBuf, golden: &Path) -> Self {
        let file = File::open(golden).unwrap_or_else(|e| panic!("{}: {e}", golden.display()));
        Self { dir, _made: None, golden: ZipArchive::new(BufReader::new(file)).unwrap() }
    }

    /// The small synthetic checkpoint.
    fn synthetic() -> Self {
        let made = tempfile::tempdir().unwrap();
        Spec::tiny(ModelType::Base).write(made.path()).unwrap();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/analysis.npz");
        let reference = Self::new(made.path().into(), Path::new(golden));
        Self { _made: Some(made), ..reference }
    }

    fn array<T: npyz::Deserialize>(&mut self, name: &str) -> Vec<T> {
        let entry = self.golden.by_name(&format!("{name}.npy")).unwrap();
        NpyFile::new(entry).unwrap().into_vec().unwrap()
    }

    fn lengths(&mut self) -> Vec<usize> {
        self.array::<i32>("samples").into_iter().map(|n| n as usize).collect()
    }
}

/// The checkpoints there are.
fn references() -> Vec<Reference> {
    let dir = std::env::var_os("MK_TTS_ANALYSIS");
    let golden = std::env::var_os("MK_TTS_ANALYSIS_GOLDEN");
    let given = dir.zip(golden).map(|(dir, golden)| Reference::new(dir.into(), Path::new(&golden)));
    given.into_iter().chain([Reference::synthetic()]).collect()
}

/// The engines there are.
fn runtimes() -> Vec<Runtime> {
    let rten = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
    let mut all = vec![Runtime::open(&rten).unwrap()];
    if let Some(library) = std::env::var_os("ORT_DYLIB_PATH") {
        let options = RuntimeOptions { library: Some(library.into()), ..RuntimeOptions::default() };
        all.push(Runtime::open(&options).unwrap());
    }
    all
}

/// |a - b| / |b|, Euclidean norms.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut b.iter().map(|b| f64::from(*b)))
}

#[test]
fn mel_spectrogram() {
    for mut reference in references() {
        let samples = reference.lengths()[0];
        let golden = reference.array::<f32>("mel");
        let mel = MelSpectrogram::new().compute(&sound(samples)).unwrap();
        let frames = MelSpectrogram::frames(samples);
        assert_eq!(golden.len(), frames * BANDS);
        // The reference's is [frames][bands].
        let turned: Vec<f32> =
            (0..golden.len()).map(|i| mel[i % BANDS * frames + i / BANDS]).collect();
        let most = turned.iter().zip(&golden).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < 1e-3, "off by {most}");
        assert!(relative(&turned, &golden) < 1e-5, "off by {:e}", relative(&turned, &golden));
    }
}

#[test]
fn voices() {
    for mut reference in references() {
        let tensors = TensorFiles::open(&reference.dir).unwrap();
        for runtime in runtimes() {
            let encoder = SpeakerEncoder::open(&reference.dir, &tensors, &runtime).unwrap();
            for length in reference.lengths() {
                let golden = reference.array::<f32>(&format!("xvector_{length}"));
                let voice = encoder.embed(&sound(length)).unwrap();
                let error = relative(&voice, &golden);
                println!("{}: {length} samples: {error:e}", runtime.describe());
                assert!(error < 1e-5, "{}, {length} samples: off by {error:e}", runtime.describe());
            }
        }
    }
}

/// By how much the second nearest entry must be farther than the nearest, relative to it, for rounding not to decide.
const NEAR_TIE: f32 = 1e-5;

#[test]
fn codes() {
    for mut reference in references() {
        let folder = reference.dir.join("speech_tokenizer");
        for runtime in runtimes() {
            let cache = tempfile::tempdir().unwrap();
            let encoder = CodecEncoder::open(&folder, &runtime, Some(cache.path())).unwrap();
            let groups = encoder.groups();
            for length in reference.lengths() {
                let golden = reference.array::<i32>(&format!("codes_{length}"));
                let margins = reference.array::<f32>(&format!("margin_{length}"));
                let codes = encoder.encode(&sound(length)).unwrap();
                let frames = length.div_ceil(encoder.samples_per_frame());
                assert_eq!((codes.len(), golden.len()), (frames * groups, frames * groups));
                // The codes of a frame after one that differs are those of another residual.
                let differ = (0..frames).filter_map(|frame| {
                    (frame * groups..(frame + 1) * groups).find(|i| codes[*i] != golden[*i] as u32)
                });
                let differ: Vec<f32> = differ.map(|i| margins[i]).collect();
                let what = format!("{}: {length} samples", runtime.describe());
                println!("{what}: {} of {frames} frames differ, at {differ:?}", differ.len());
                assert!(differ.iter().all(|margin| *margin < NEAR_TIE), "{what}: {differ:?}");
            }
        }
    }
}
