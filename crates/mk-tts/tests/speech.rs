//! Speech from the outside: what a program that speaks holds in its hands.

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use mk_tts::audio::Audio;
use mk_tts::config::ModelType;
use mk_tts::guard::{GuardOptions, Stop};
use mk_tts::runtime::{EngineChoice, RuntimeOptions};
use mk_tts::synth::Spec;
use mk_tts::talker::TextLayout;
use mk_tts::{Chunk, Error, Finish, SpeakOptions, Speech, Tts, TtsOptions, Voice};

const TEXT: &str = "Hello world, this is a test.";

fn load(spec: &Spec) -> (tempfile::TempDir, Tts) {
    let dir = tempfile::tempdir().unwrap();
    spec.write(dir.path()).unwrap();
    let runtime = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
    let tts = Tts::load(dir.path(), &TtsOptions { runtime, ..TtsOptions::default() }).unwrap();
    (dir, tts)
}

static CUSTOM: LazyLock<Tts> = LazyLock::new(|| load(&Spec::tiny(ModelType::CustomVoice)).1);
/// Reads what cloning needs when the first voice is cloned: the folder has to stay.
static BASE_IN_FOLDER: LazyLock<(tempfile::TempDir, Tts)> =
    LazyLock::new(|| load(&Spec::tiny(ModelType::Base)));
static BASE: LazyLock<Tts> = LazyLock::new(|| BASE_IN_FOLDER.1.clone());

/// At most 12 frames, unless the model ends before.
fn brief() -> SpeakOptions {
    let guard = GuardOptions { max_frames: Some(12), ..GuardOptions::none() };
    SpeakOptions { language: "english".into(), guard, ..SpeakOptions::default() }
}

fn ryan() -> Voice {
    CUSTOM.voice("Ryan").unwrap()
}

fn collect(speech: Speech) -> Vec<Chunk> {
    speech.collect::<Result<_, _>>().unwrap()
}

fn samples(chunks: &[Chunk]) -> Vec<f32> {
    chunks.iter().flat_map(|chunk| chunk.samples.clone()).collect()
}

/// A hum whose pitch moves, `seconds` long.
fn recording(seconds: f64, sample_rate: u32) -> Audio {
    let count = (seconds * f64::from(sample_rate)) as usize;
    let sample = |i: usize| {
        let t = i as f32 / sample_rate as f32;
        0.3 * (1100.0 * t + 30.0 * (5.0 * t).sin()).sin() * (0.6 + 0.4 * (20.0 * t).sin())
    };
    Audio { samples: (0..count).map(sample).collect(), sample_rate }
}

#[test]
fn chunks_follow_on_each_other_without_a_gap() {
    let speech = CUSTOM.speak(TEXT, &ryan(), &brief()).unwrap();
    let chunks = collect(speech);
    let per_frame = CUSTOM.samples_per_frame();
    let mut next = 0;
    let mut spoken = 0;
    for chunk in &chunks {
        assert_eq!(chunk.first_sample, next);
        next += chunk.samples.len() as u64;
        assert!(chunk.samples.iter().all(|x| x.is_finite() && x.abs() <= 1.0));
        assert_eq!(chunk.to_i16().len(), chunk.samples.len());
        assert!(chunk.text.start >= spoken && chunk.text.end >= chunk.text.start);
        assert!(chunk.text.end <= chunk.fed && chunk.fed <= TEXT.len());
        spoken = chunk.text.end;
    }
    assert_eq!(next as usize, 12 * per_frame);
    assert_eq!(chunks[0].samples.len(), per_frame - CUSTOM.sample_rate() as usize / 200);
    let all = samples(&chunks);
    assert_eq!((all[0], all[all.len() - 1]), (0.0, 0.0));
    assert!(all.iter().any(|x| x.abs() > 0.01), "the noise is audible");
}

#[test]
fn how_a_speech_is_cut_makes_no_difference_to_how_it_sounds() {
    let expected = samples(&collect(CUSTOM.speak(TEXT, &ryan(), &brief()).unwrap()));
    for (first, others) in [(0, 0), (3, 1), (12, 1), (50, 50)] {
        let options = SpeakOptions { first_chunk_frames: first, chunk_frames: others, ..brief() };
        let found = samples(&collect(CUSTOM.speak(TEXT, &ryan(), &options).unwrap()));
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "chunks of {first} and {others}: {worst}");
    }
}

#[test]
fn the_seed_decides() {
    let speak = |seed| {
        let options = SpeakOptions { seed, ..brief() };
        samples(&collect(CUSTOM.speak(TEXT, &ryan(), &options).unwrap()))
    };
    assert_eq!(speak(5), speak(5));
    assert_ne!(speak(5), speak(6));
}

#[test]
fn voices_languages_and_layouts_matter() {
    let speak = |voice: &str, language: &str, layout| {
        let options = SpeakOptions { language: language.into(), layout: Some(layout), ..brief() };
        samples(&collect(CUSTOM.speak(TEXT, &CUSTOM.voice(voice).unwrap(), &options).unwrap()))
    };
    let base = speak("ryan", "english", TextLayout::Streaming);
    assert_eq!(base, speak("RYAN", "English", TextLayout::Streaming));
    assert_ne!(base, speak("serena", "english", TextLayout::Streaming));
    assert_ne!(base, speak("ryan", "german", TextLayout::Streaming));
    assert_ne!(base, speak("ryan", "english", TextLayout::Whole));
}

#[test]
fn speeches_do_not_disturb_each_other() {
    let options = |seed| SpeakOptions { seed, ..brief() };
    let alone: Vec<Vec<f32>> = (0..3)
        .map(|seed| samples(&collect(CUSTOM.speak(TEXT, &ryan(), &options(seed)).unwrap())))
        .collect();
    let threads: Vec<_> = (0..3)
        .map(|seed| CUSTOM.speak(TEXT, &ryan(), &options(seed)).unwrap())
        .map(|speech| thread::spawn(move || samples(&collect(speech))))
        .collect();
    let together: Vec<Vec<f32>> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    assert_eq!(together, alone);
}

#[test]
fn a_live_text_sounds_as_the_same_text_streamed() {
    let options = SpeakOptions { layout: Some(TextLayout::Streaming), ..brief() };
    let expected = samples(&collect(CUSTOM.speak(TEXT, &ryan(), &options).unwrap()));

    let (mut writer, speech) = CUSTOM.speak_live(&ryan(), &options).unwrap();
    let reader = thread::spawn(move || collect(speech));
    for piece in ["Hel", "lo wor", "ld, this", " is a te", "st."] {
        thread::sleep(Duration::from_millis(30));
        writer.push(piece).unwrap();
    }
    writer.finish().unwrap();
    let found = samples(&reader.join().unwrap());
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}

#[test]
fn a_text_that_runs_dry_holds_the_frame_and_gives_out_what_there_is() {
    let options = SpeakOptions { chunk_frames: 100, ..brief() };
    let (mut writer, mut speech) = CUSTOM.speak_live(&ryan(), &options).unwrap();
    writer.push("Hello world, th").unwrap();
    // The first chunk is one frame; the second has a frame for every further token that is there, not a hundred.
    let first = speech.next().unwrap().unwrap();
    let second = speech.next().unwrap().unwrap();
    assert!(second.samples.len() < 12 * CUSTOM.samples_per_frame());
    assert!(first.fed <= second.fed && second.fed <= "Hello world,".len());
    assert_eq!(speech.finish(), None);
    writer.push("is is").unwrap();
    writer.finish().unwrap();
    let rest = collect(speech);
    assert!(rest.last().unwrap().fed == "Hello world, this is".len());
}

#[test]
fn a_stalled_text_is_an_error_not_a_hang() {
    let mut options = brief();
    options.live.idle_timeout = Some(Duration::from_millis(50));
    let (mut writer, mut speech) = CUSTOM.speak_live(&ryan(), &options).unwrap();
    writer.push("Hello there and").unwrap();
    let error = speech.find_map(Result::err).unwrap();
    assert!(matches!(error, Error::TextStalled { .. }), "{error}");
    assert!(speech.next().is_none());
}

#[test]
fn cancelling_ends_a_speech_wherever_it_is() {
    let options = SpeakOptions { chunk_frames: 1, ..brief() };
    let mut speech = CUSTOM.speak(TEXT, &ryan(), &options).unwrap();
    speech.next().unwrap().unwrap();
    speech.canceller().cancel();
    assert!(speech.next().is_none());
    assert_eq!(speech.finish(), Some(Finish::Cancelled));

    // While it waits for a text that does not come.
    let (writer, mut speech) = CUSTOM.speak_live(&ryan(), &options).unwrap();
    let canceller = speech.canceller();
    let waiting = thread::spawn(move || (speech.next().is_none(), speech.finish()));
    thread::sleep(Duration::from_millis(50));
    canceller.cancel();
    assert_eq!(waiting.join().unwrap(), (true, Some(Finish::Cancelled)));
    drop(writer);
}

#[test]
fn a_speech_without_an_end_is_ended() {
    let mut speech = CUSTOM.speak("Hi.", &ryan(), &brief()).unwrap();
    assert_eq!(speech.by_ref().count(), 4);
    assert_eq!(speech.finish(), Some(Finish::Guard(Stop::Length)));
    assert_eq!(speech.frames(), 12);
}

#[test]
fn the_model_ends_a_speech() {
    let (_dir, tts) = load(&Spec { eos_gain: 5.0, ..Spec::tiny(ModelType::CustomVoice) });
    let guard = GuardOptions { max_frames: Some(200), ..GuardOptions::none() };
    let options = SpeakOptions { guard, ..brief() };
    let mut speech = tts.speak(TEXT, &tts.voice("ryan").unwrap(), &options).unwrap();
    let chunks: Vec<Chunk> = speech.by_ref().collect::<Result<_, _>>().unwrap();
    assert_eq!(speech.finish(), Some(Finish::EndOfSpeech));
    assert!(speech.frames() >= 2 && speech.frames() < 200, "{} frames", speech.frames());
    let last = chunks.last().unwrap();
    assert_eq!(last.samples[last.samples.len() - 1], 0.0);
    // What is made ahead of the player is not spoken yet. All has been spoken, and exactly so, when all has been played;
    // and then it stays so.
    let (spoken, end) = (speech.spoken_text(), last.first_sample + last.samples.len() as u64);
    assert_eq!((spoken.at(0), spoken.at(end), spoken.at(0)), (0, last.fed, last.fed));
}

#[test]
fn a_long_text_is_spoken_in_segments_of_one_voice_and_one_stream() {
    let (_dir, tts) = load(&Spec { eos_gain: 5.0, ..Spec::tiny(ModelType::CustomVoice) });
    let text = "One sentence here. Another sentence there. And a third one follows.";
    let options = SpeakOptions { segment_tokens: 20, guard: GuardOptions::default(), ..brief() };
    let mut speech = tts.speak(text, &tts.voice("ryan").unwrap(), &options).unwrap();
    let chunks: Vec<Chunk> = speech.by_ref().collect::<Result<_, _>>().unwrap();
    let all = samples(&chunks);
    assert_eq!(all.len() as u64, speech.frames() * tts.samples_per_frame() as u64);
    assert_eq!(chunks.last().unwrap().fed, text.len());
    assert_eq!(speech.spoken_text().at(all.len() as u64), text.len());
    let marks = speech.spoken_text().marks(tts.samples_per_frame() as u64);
    assert_eq!((marks[0], marks[marks.len() - 1]), ((0, 0), (all.len() as u64, text.len())));
}

#[test]
fn voices_are_cloned_kept_and_loaded() {
    let sound = recording(1.5, 16_000);
    let quick = BASE.clone_voice(&sound, None).unwrap();
    let full = BASE.clone_voice(&sound, Some("what was said")).unwrap();
    let speak = |voice: &Voice, layout| {
        let options = SpeakOptions { layout: Some(layout), ..brief() };
        samples(&collect(BASE.speak(TEXT, voice, &options).unwrap()))
    };
    let dir = tempfile::tempdir().unwrap();
    for (name, voice) in [("quick", &quick), ("full", &full)] {
        let path = dir.path().join(name);
        voice.save(&path).unwrap();
        let loaded = BASE.load_voice(&path).unwrap();
        assert_eq!(&loaded, voice);
        for layout in [TextLayout::Streaming, TextLayout::Whole] {
            // The second time from what is kept of the first.
            BASE.warm_up(voice, "english", layout).unwrap();
            assert_eq!(speak(&loaded, layout), speak(voice, layout));
        }
    }
    let streamed = |voice| speak(voice, TextLayout::Streaming);
    assert_ne!(streamed(&quick), streamed(&full));

    let (mut writer, speech) = BASE.speak_live(&full, &brief()).unwrap();
    writer.push(TEXT).unwrap();
    writer.finish().unwrap();
    assert_eq!(samples(&collect(speech)), streamed(&full));
}

#[test]
fn bad_voice_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("voice");
    BASE.clone_voice(&recording(1.5, 24_000), Some("said")).unwrap().save(&path).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    let at = good.find("\"speaker\":[").unwrap() + 11;
    for (what, text) in [
        ("not JSON", "hello".to_string()),
        ("another format", good.replacen("mk-voice-1", "mk-voice-9", 1)),
        ("a speaker of one number more", format!("{}0.5,{}", &good[..at], &good[at..])),
        ("a code too many", good.replacen("\"codes\":[[", "\"codes\":[[1,", 1)),
        ("no text", good.replacen("\"said\"", "\" \"", 1)),
    ] {
        assert_ne!(text, good, "{what}");
        std::fs::write(&path, text).unwrap();
        let error = BASE.load_voice(&path).unwrap_err();
        assert!(matches!(error, Error::VoiceFile { .. }), "{what}: {error}");
    }
    assert!(matches!(BASE.load_voice(&dir.path().join("none")), Err(Error::Io { .. })));
}

#[test]
fn a_designed_voice_speaks_to_its_description() {
    let (_dir, tts) = load(&Spec::tiny(ModelType::VoiceDesign));
    let speak = |description| {
        let voice = tts.design_voice(description).unwrap();
        samples(&collect(tts.speak(TEXT, &voice, &brief()).unwrap()))
    };
    assert_ne!(speak("a calm old man"), speak("an excited child"));
    assert_eq!(speak(" "), speak(""));
}

#[test]
fn calls_for_another_model_and_bad_input_are_clear_errors() {
    let text = |error: Error| error.to_string();
    let base = BASE.voice("ryan").unwrap_err();
    assert_eq!(
        text(base),
        "a voice by its name needs a model of type custom_voice, this one is base"
    );
    let clone = CUSTOM.clone_voice(&recording(2.0, 24_000), None).unwrap_err();
    assert!(matches!(clone, Error::WrongModel { .. }), "{clone}");
    assert!(matches!(CUSTOM.design_voice("x"), Err(Error::WrongModel { .. })));
    let voice = BASE.clone_voice(&recording(1.5, 24_000), None).unwrap();
    assert!(matches!(CUSTOM.speak(TEXT, &voice, &brief()), Err(Error::WrongModel { .. })));
    assert!(matches!(ryan().save("x".as_ref()), Err(Error::NotACloned)));

    let unknown = text(CUSTOM.voice("nobody").unwrap_err());
    assert!(unknown.contains("nobody") && unknown.contains("ryan"), "{unknown}");
    let options = SpeakOptions { language: "klingon".into(), ..brief() };
    let language = text(CUSTOM.speak(TEXT, &ryan(), &options).unwrap_err());
    assert!(language.contains("klingon") && language.contains("english"), "{language}");
    for empty in ["", " \n", "<|im_end|>"] {
        assert!(matches!(CUSTOM.speak(empty, &ryan(), &brief()), Err(Error::EmptyText)));
    }
    // The small model takes no instructions.
    let told = ryan().with_instruction("whisper");
    assert!(matches!(CUSTOM.speak(TEXT, &told, &brief()), Err(Error::NoInstructions { .. })));
    let whole = SpeakOptions { layout: Some(TextLayout::Whole), ..brief() };
    assert!(matches!(CUSTOM.speak_live(&ryan(), &whole), Err(Error::NotStreaming)));

    let short = BASE.clone_voice(&recording(0.2, 24_000), None).unwrap_err();
    assert!(matches!(short, Error::ReferenceTooShort { .. }), "{short}");
    let silent = Audio { samples: vec![0.0; 48_000], sample_rate: 24_000 };
    assert!(matches!(BASE.clone_voice(&silent, None), Err(Error::ReferenceSilent { .. })));
    let empty = BASE.clone_voice(&recording(2.0, 24_000), Some(" "));
    assert!(matches!(empty, Err(Error::EmptyText)));
}

#[test]
fn checkpoints_that_are_not_whole_are_refused_by_name() {
    let (dir, _tts) = load(&Spec::tiny(ModelType::CustomVoice));
    let runtime = RuntimeOptions { engine: EngineChoice::Rten, ..RuntimeOptions::default() };
    let options = TtsOptions { runtime, ..TtsOptions::default() };
    let refused = |what: &str| {
        let error = Tts::load(dir.path(), &options).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
    };
    let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("config.json"), text).unwrap();
    let rename = |from: &str, to: &str| {
        std::fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
    };

    write(&config.replace("\"tts_eos_token_id\"", "\"x\""));
    refused("tts_eos_token_id");
    write(&config.replace("\"qwen3_tts\"", "\"qwen3\""));
    refused("model_type");
    write(&config.replace("\"custom_voice\"", "\"karaoke\""));
    refused("karaoke");
    write(&config.replace("\"rms_norm_eps\"", "\"eps\""));
    // The default stands in for it: no error, and so nothing to refuse.
    Tts::load(dir.path(), &options).unwrap();
    write(&config.replace("\"intermediate_size\": 96", "\"intermediate_size\": 97"));
    refused("talker.model.layers.0.mlp.gate_proj.weight");
    write(&config);

    rename("speech_tokenizer", "elsewhere");
    refused("speech_tokenizer");
    rename("elsewhere", "speech_tokenizer");
    rename("vocab.json", "vocab");
    refused("vocab.json");
}
