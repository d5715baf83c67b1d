use std::fs;

use mk_model::checkpoint::TensorFiles;
use mk_model::text::Tokenizer;

use super::*;

fn written(spec: &Spec) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    spec.write(dir.path()).expect("a valid spec");
    dir
}

fn json(dir: &Path, name: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(dir.join(name)).expect("a file of the checkpoint"))
        .expect("JSON")
}

/// The files of the published repositories. Some of those lack an entry that ours have, 32 bytes of the header.
#[test]
fn files_are_as_long_as_the_published_ones() {
    let size = |preset: &str, model_type| {
        let spec = Spec::preset(preset, model_type).expect("a preset");
        tensors::file_size(&spec.talker_tensors(), spec.dtype)
    };
    assert_eq!(size("0.6b", ModelType::Base) - 32, 1_829_344_272);
    assert_eq!(size("0.6b", ModelType::CustomVoice), 1_811_626_576);
    assert_eq!(size("1.7b", ModelType::Base) - 32, 3_857_413_744);
    assert_eq!(size("1.7b", ModelType::CustomVoice), 3_833_402_552);
    assert_eq!(size("1.7b", ModelType::VoiceDesign), 3_833_402_552);
    let spec = Spec::preset("0.6b", ModelType::Base).expect("a preset");
    assert_eq!(tensors::file_size(&codec::tensors(&spec), Dtype::F32) - 32, 682_293_092);
}

#[test]
fn every_preset_has_a_name() {
    for name in Spec::PRESETS {
        let spec = Spec::preset(name, ModelType::Base).expect("a preset");
        assert!(shape::problems(&spec).is_empty(), "{name}");
    }
    assert_eq!(Spec::preset("8b", ModelType::Base), None);
}

#[test]
fn a_checkpoint_has_the_published_files() {
    for model_type in [ModelType::Base, ModelType::CustomVoice, ModelType::VoiceDesign] {
        let dir = written(&Spec::tiny(model_type));
        let mut names = Vec::new();
        let mut bytes = 0;
        for folder in [dir.path().to_path_buf(), dir.path().join(CODEC)] {
            for entry in fs::read_dir(folder).expect("a folder") {
                let entry = entry.expect("an entry");
                names.push(entry.file_name().to_string_lossy().into_owned());
                bytes += entry.metadata().expect("metadata").len();
            }
        }
        names.sort();
        let expected = [
            "config.json",
            "config.json",
            "configuration.json",
            "generation_config.json",
            "merges.txt",
            "model.safetensors",
            "model.safetensors",
            "preprocessor_config.json",
            "preprocessor_config.json",
            "speech_tokenizer",
            "tokenizer_config.json",
            "vocab.json",
        ];
        assert_eq!(names, expected);
        assert!(bytes < 10_000_000, "{bytes} bytes");
        crate::config::TtsConfig::open(dir.path()).expect("a config we can read");
        let config = json(dir.path(), "config.json");
        assert_eq!(config["tts_model_type"], model_type.to_string());
        let cloning = config.get("speaker_encoder_config").is_some();
        assert_eq!(cloning, model_type == ModelType::Base);
        let tensors = TensorFiles::open(dir.path()).expect("safetensors");
        assert_eq!(tensors.get("speaker_encoder.fc.weight").is_some(), cloning);
    }
}

/// The talker cuts prompts by position: three tokens before the text, five after it.
#[test]
fn prompts_have_the_published_form() {
    for spec in [Spec::tiny(ModelType::Base), Spec::odd(ModelType::Base)] {
        let dir = written(&spec);
        let config = json(dir.path(), "config.json");
        let id = |name: &str| config[name].as_u64().expect("an id") as u32;
        let tokenizer = Tokenizer::from_dir(dir.path()).expect("a tokenizer");
        let text = tokenizer.encode("Hello you,\nwórld").expect("ids");
        assert_eq!(tokenizer.decode(&text, false), "Hello you,\nwórld");
        let prompt = "<|im_start|>assistant\nHello you,\nwórld<|im_end|>\n<|im_start|>assistant\n";
        let (start, end, who) =
            (id("im_start_token_id"), id("im_end_token_id"), id("assistant_token_id"));
        let expected = [&[start, who, 198], &text[..], &[end, 198, start, who, 198]].concat();
        assert_eq!(tokenizer.encode(prompt).expect("ids"), expected);
        for (name, token) in [
            ("tts_pad_token_id", "<tts_pad>"),
            ("tts_bos_token_id", "<tts_text_bos>"),
            ("tts_eos_token_id", "<tts_text_eod>"),
        ] {
            assert_eq!(tokenizer.id(token), Some(id(name)));
        }
        assert_eq!(tokenizer.encode("user").expect("ids").len(), 1);
        assert_eq!(tokenizer.vocab_size(), spec.tokens());
    }
}

#[test]
fn wide_ids_are_the_published_ones() {
    let dir = written(&Spec::wide(ModelType::CustomVoice));
    let config = json(dir.path(), "config.json");
    for (name, id) in [
        ("im_start_token_id", 151_644),
        ("im_end_token_id", 151_645),
        ("assistant_token_id", 77_091),
        ("tts_pad_token_id", 151_671),
        ("tts_bos_token_id", 151_672),
        ("tts_eos_token_id", 151_673),
    ] {
        assert_eq!(config[name], id, "{name}");
    }
    assert_eq!(config["talker_config"]["codec_eos_token_id"], 2150);
    assert_eq!(config["talker_config"]["spk_id"]["ryan"], 3061);
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("a tokenizer");
    assert_eq!(tokenizer.encode("assistant\n").expect("ids"), [77_091, 198]);
    assert_eq!(tokenizer.encode("user").expect("ids"), [872]);
    assert_eq!(tokenizer.vocab_size(), 151_676);
}

/// References made elsewhere from these checkpoints rely on their numbers.
#[test]
fn the_seed_decides() {
    let head = |spec: &Spec| {
        let dir = written(spec);
        let tensors = TensorFiles::open(dir.path()).expect("safetensors");
        tensors.get("talker.codec_head.weight").expect("the head").to_f32()
    };
    let tiny = Spec::tiny(ModelType::CustomVoice);
    let numbers = head(&tiny);
    assert_eq!(numbers, head(&Spec::tiny(ModelType::Base)));
    assert_ne!(numbers, head(&Spec { seed: 1, ..tiny.clone() }));
    let ending = head(&Spec { eos_gain: 5.0, ..tiny.clone() });
    let differ: Vec<usize> = (0..numbers.len() / 32)
        .filter(|row| numbers[32 * row..][..32] != ending[32 * row..][..32])
        .collect();
    assert_eq!(differ, [2150]);
}

#[test]
fn refuses_what_cannot_be() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tiny = Spec::tiny(ModelType::Base);
    let narrow = Decoder { head_dim: 31, num_key_value_heads: 0, ..tiny.talker };
    let spec = Spec { talker: narrow, text_vocab_size: tokenizer::SMALLEST - 1, ..tiny.clone() };
    let error = spec.write(dir.path()).expect_err("a spec with three mistakes").to_string();
    for field in ["talker.head_dim", "talker.num_key_value_heads", "text_vocab_size"] {
        assert!(error.contains(field), "{error}");
    }
    assert!(fs::read_dir(dir.path()).expect("the directory").next().is_none());
    let least = Spec { text_vocab_size: tokenizer::SMALLEST, ..tiny };
    assert!(least.write(dir.path()).is_ok());
}
