use std::fs::{self, File};

use npyz::NpyFile;

use super::*;
use crate::config::ModelType;
use crate::runtime::{EngineChoice, RuntimeOptions};
use crate::synth::Spec;

/// A synthetic checkpoint's codec, and what the reference's unchunked forward makes of random codes
/// (`cargo xtask goldens --speech`).
struct Golden {
    dir: tempfile::TempDir,
    /// [frames][groups]
    codes: Vec<u32>,
    /// Every so many of its samples.
    wave: Vec<f32>,
    every: usize,
}

impl Golden {
    fn new(name: &str, spec: &Spec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        spec.write(dir.path()).unwrap();
        let path = format!("{}/tests/goldens/{name}/codec.npz", env!("CARGO_MANIFEST_DIR"));
        let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
        let codes: Vec<i32> =
            NpyFile::new(archive.by_name("codes.npy").unwrap()).unwrap().into_vec().unwrap();
        let wave = NpyFile::new(archive.by_name("wav.npy").unwrap()).unwrap().into_vec().unwrap();
        let every: Vec<i32> = NpyFile::new(archive.by_name("samples_every.npy").unwrap())
            .unwrap()
            .into_vec()
            .unwrap();
        let codes = codes.into_iter().map(|code| code as u32).collect();
        Self { dir, codes, wave, every: every[0] as usize }
    }

    fn tiny() -> Self {
        Self::new("tiny-base", &Spec::tiny(ModelType::Base))
    }

    /// One that is odd in every way, without a reference.
    fn odd() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Spec::odd(ModelType::Base).write(dir.path()).unwrap();
        let codes = (0..400u32).map(|i| i.wrapping_mul(2_654_435_761) % 256).collect();
        Self { dir, codes, wave: Vec::new(), every: 1 }
    }

    fn codec(&self) -> std::path::PathBuf {
        self.dir.path().join("speech_tokenizer")
    }

    fn decoder(&self, runtime: &Runtime) -> CodecDecoder {
        CodecDecoder::open(&self.codec(), runtime, None).unwrap()
    }

    /// The largest difference from the reference.
    fn difference(&self, wave: &[f32]) -> f32 {
        let ours = wave.iter().step_by(self.every);
        assert_eq!(ours.len(), self.wave.len());
        ours.zip(&self.wave).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }
}

/// rten, and ONNX Runtime where the environment says where it is.
fn runtimes() -> Vec<Runtime> {
    let rten = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
    let library = std::env::var_os("ORT_DYLIB_PATH").map(|library| RuntimeOptions {
        library: Some(library.into()),
        ..RuntimeOptions::default()
    });
    [Some(rten), library].iter().flatten().map(|o| Runtime::open(o).unwrap()).collect()
}

/// Decodes in calls of these numbers of frames, over and over.
fn stream(decoder: &CodecDecoder, codes: &[u32], calls: &[usize]) -> Vec<f32> {
    let mut stream = decoder.new_stream();
    let (mut wave, mut rest) = (Vec::new(), codes);
    for frames in calls.iter().cycle() {
        let (now, later) = rest.split_at(rest.len().min(frames * decoder.groups()));
        wave.extend(stream.decode(now).unwrap());
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(stream.frames() as usize * decoder.groups(), codes.len());
    wave
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Longer than all that the layers reach back to (580 frames), in calls of all lengths.
#[test]
fn a_long_stream_is_the_references_whole_forward() {
    let golden = Golden::tiny();
    assert_eq!(golden.codes.len(), 700 * 16);
    for runtime in runtimes() {
        let wave = stream(&golden.decoder(&runtime), &golden.codes, &[1, 4, 7, 24]);
        let difference = golden.difference(&wave);
        assert!(difference < 2e-5, "{}: {difference}", runtime.describe());
    }
}

#[test]
fn odd_shapes_too() {
    let golden = Golden::odd();
    let waves: Vec<Vec<f32>> = runtimes()
        .iter()
        .map(|runtime| {
            let decoder = golden.decoder(runtime);
            assert_eq!((decoder.groups(), decoder.samples_per_frame()), (10, 1920));
            let wave = stream(&decoder, &golden.codes, &[3, 1, 20]);
            assert!(wave.iter().any(|sample| sample.abs() > 0.01));
            assert!(largest_difference(&wave, &stream(&decoder, &golden.codes, &[40])) < 1e-6);
            wave
        })
        .collect();
    // The engines know nothing of each other.
    waves.iter().for_each(|wave| assert!(largest_difference(wave, &waves[0]) < 2e-5));
}

#[test]
fn how_frames_are_spread_over_calls_makes_no_difference() {
    let golden = Golden::tiny();
    let codes = &golden.codes[..100 * 16];
    for runtime in runtimes() {
        let decoder = golden.decoder(&runtime);
        let whole = stream(&decoder, codes, &[100]);
        for frames in [1, 4, 7, 24] {
            let difference = largest_difference(&stream(&decoder, codes, &[frames]), &whole);
            assert!(difference < 1e-6, "{} {frames}: {difference}", runtime.describe());
        }
    }
}

/// Runs that are filled up, as where every run must be alike.
#[test]
fn what_fills_a_run_up_leaves_no_trace() {
    for (golden, frames) in [(Golden::tiny(), 100), (Golden::odd(), 40)] {
        for runtime in runtimes() {
            let mut decoder = golden.decoder(&runtime);
            let codes = &golden.codes[..frames * decoder.groups()];
            let whole = stream(&decoder, codes, &[frames]);
            for block in [1, 4, 30] {
                Arc::get_mut(&mut decoder.shared).unwrap().block = Some(block);
                let difference =
                    largest_difference(&stream(&decoder, codes, &[1, 4, 7, 24]), &whole);
                assert!(difference < 1e-6, "{} {block}: {difference}", runtime.describe());
            }
        }
    }
}

#[test]
fn another_codec_fails() {
    let mut golden = Golden::tiny();
    golden.codes.truncate(5 * 16);
    golden.wave.truncate((5 * 1920usize).div_ceil(golden.every));
    Spec { seed: 99, ..Spec::tiny(ModelType::Base) }.write(golden.dir.path()).unwrap();
    let decoder = golden.decoder(&runtimes()[0]);
    assert!(golden.difference(&stream(&decoder, &golden.codes, &[5])) > 1e-2);
}

#[test]
fn a_clone_goes_on_by_itself() {
    let golden = Golden::odd();
    for runtime in runtimes() {
        let decoder = golden.decoder(&runtime);
        let frames = |from: usize, to: usize| &golden.codes[from * 10..to * 10];
        let mut first = decoder.new_stream();
        first.decode(frames(0, 5)).unwrap();
        let mut second = first.clone();
        let other = first.decode(frames(20, 25)).unwrap();
        let next = second.decode(frames(5, 10)).unwrap();
        assert_eq!((first.frames(), second.frames()), (10, 10));
        let whole = stream(&decoder, frames(0, 10), &[10]);
        assert!(largest_difference(&next, &whole[5 * 1920..]) < 1e-6);
        assert!(largest_difference(&other, &next) > 1e-2);
    }
}

#[test]
fn many_streams_of_one_decoder_at_once() {
    let golden = Golden::odd();
    for runtime in runtimes() {
        let decoder = golden.decoder(&runtime);
        let expected = stream(&decoder, &golden.codes[..80], &[8]);
        std::thread::scope(|scope| {
            for frames in [1, 2, 3] {
                let (decoder, codes, expected) = (&decoder, &golden.codes[..80], &expected);
                scope.spawn(move || {
                    assert!(
                        largest_difference(&stream(decoder, codes, &[frames]), expected) < 1e-6
                    );
                });
            }
        });
    }
}

#[test]
fn codes_that_cannot_be() {
    let golden = Golden::odd();
    let decoder = golden.decoder(&runtimes()[0]);
    let mut stream = decoder.new_stream();
    assert!(stream.decode(&[]).unwrap().is_empty());
    stream.decode(&golden.codes[..20]).unwrap();
    assert!(matches!(
        stream.decode(&[0; 11]),
        Err(Error::NotWholeFrames { found: 11, groups: 10 })
    ));
    let mut codes = [0; 20];
    codes[13] = 256;
    match stream.decode(&codes) {
        Err(Error::CodeOutOfRange { frame: 3, group: 3, code: 256, size: 256 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(stream.frames(), 2);
}

/// Overwrites the numbers of a tensor of the codec, or renames it.
fn damage(golden: &Golden, name: &str, change: impl Fn(&mut Vec<u8>, std::ops::Range<usize>)) {
    let path = golden.codec().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let offsets: Vec<usize> =
        serde_json::from_value(header[name]["data_offsets"].clone()).expect("the tensor");
    change(&mut bytes, 8 + length + offsets[0]..8 + length + offsets[1]);
    fs::write(&path, bytes).unwrap();
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let golden = Golden::odd();
    let nan = |bytes: &mut Vec<u8>, range: std::ops::Range<usize>| {
        bytes[range.start + 4..range.start + 8].copy_from_slice(&f32::NAN.to_le_bytes());
    };
    let names = ["decoder.pre_conv.conv.bias", "decoder.decoder.1.block.0.alpha"];
    names.iter().for_each(|name| damage(&golden, name, nan));
    let error = CodecDecoder::open(&golden.codec(), &runtimes()[0], None).unwrap_err().to_string();
    assert!(
        names.iter().all(|name| error.contains(name)) && error.contains("2 problem"),
        "{error}"
    );
}

#[test]
fn samples_that_are_not_finite_are_an_error() {
    let golden = Golden::odd();
    // Finite by themselves, but not when added up.
    let huge = |bytes: &mut Vec<u8>, range: std::ops::Range<usize>| {
        for number in bytes[range].chunks_exact_mut(4) {
            number.copy_from_slice(&3e38_f32.to_le_bytes());
        }
    };
    damage(&golden, "decoder.pre_conv.conv.bias", huge);
    for runtime in runtimes() {
        let mut stream = golden.decoder(&runtime).new_stream();
        let error = stream.decode(&golden.codes[..20]).unwrap_err();
        assert!(matches!(error, Error::SampleNotFinite { frame: 0 }), "{error}");
        assert_eq!(stream.frames(), 0);
    }
}

#[test]
fn a_folder_that_is_not_there() {
    let error = CodecDecoder::open(Path::new("/no/such"), &runtimes()[0], None).unwrap_err();
    assert!(error.to_string().contains("/no/such/config.json"), "{error}");
}
