//! What loads, loads right; what does not, says why: the file, the tensor or field, what was expected and what found.

mod common;

use std::fs;
use std::path::Path;

use common::{Stored, edit_json, edit_tensors, spec, written};
use half::bf16;
use mk_model::checkpoint::Progress;
use mk_model::synth::{RopeLayout, Spec};
use mk_model::{
    Checkpoint, Dtype, Error, Input, Model, ModelOptions, Precision, Problem, Readout, Result,
};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};
use proptest::sample::select;
use serde_json::{Value, json};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
const UP: &str = "model.layers.1.mlp.up_proj.weight";

fn load(dir: &Path) -> Result<Model> {
    let options = ModelOptions { precision: Precision::F32, ..ModelOptions::default() };
    Model::load(&Checkpoint::open(dir)?, &options)
}

fn logits(dir: &Path) -> Vec<f32> {
    let model = load(dir).expect("a checkpoint that loads");
    let mut sequence = model.sequence().expect("main memory");
    let output = sequence.extend(Input::Tokens(&[1, 2, 3]), Readout::ALL_LOGITS);
    output.expect("three tokens of the vocabulary").logits
}

fn refused(dir: &Path) -> Error {
    load(dir).expect_err("this must not load")
}

/// The problems that loading `dir` reports; the message holds the directory and each of them.
fn problems(dir: &Path) -> Vec<Problem> {
    let error = refused(dir);
    let text = error.to_string();
    let Error::Checkpoint { path, problems } = error else { panic!("{text}") };
    assert_eq!(path, dir);
    assert!(text.contains(&dir.display().to_string()), "{text}");
    for problem in &problems {
        assert!(text.contains(&problem.to_string()), "{text}");
    }
    problems
}

fn unsupported(field: &str, found: &str, supported: &str) -> Problem {
    Problem::Unsupported { field: field.into(), found: found.into(), supported: supported.into() }
}

fn bad_field(field: &str, reason: &str) -> Problem {
    Problem::BadField { field: field.into(), reason: reason.into() }
}

/// A copy with `edit` applied to the tensors of its only file.
fn with_tensors(
    edit: impl FnOnce(&mut std::collections::BTreeMap<String, Stored>),
) -> tempfile::TempDir {
    let dir = written(&spec());
    edit_tensors(&dir.path().join(WEIGHTS), edit);
    dir
}

// === What loads ===

#[test]
fn shards_are_one_model() {
    let single = written(&spec());
    let sharded = written(&Spec { max_shard_bytes: Some(1_000), ..spec() });
    assert!(!sharded.path().join(WEIGHTS).exists());
    let tensors = |dir: &Path| -> Vec<(String, Vec<usize>, Vec<u8>)> {
        let checkpoint = Checkpoint::open(dir).expect("a checkpoint");
        let all = checkpoint.tensors().iter();
        all.map(|t| (t.name().into(), t.shape().into(), t.bytes().into())).collect()
    };
    assert_eq!(tensors(single.path()), tensors(sharded.path()));
    assert_eq!(tensors(single.path()).len(), 2 + 2 * 11);
    assert_eq!(logits(single.path()), logits(sharded.path()));
}

#[test]
fn numbers_are_read_in_every_type() {
    let [as_bf16, as_f16, as_f32] = [Dtype::Bf16, Dtype::F16, Dtype::F32].map(|dtype| {
        let dir = written(&Spec { dtype, ..spec() });
        assert!(logits(dir.path()).iter().all(|x| x.is_finite()));
        let checkpoint = Checkpoint::open(dir.path()).expect("a checkpoint");
        let tensor = checkpoint.tensors().get(UP).expect("a tensor of every Qwen3");
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &[12, 8][..]));
        tensor.to_f32()
    });
    let rounded = |round: fn(f32) -> f32| as_f32.iter().map(|x| round(*x)).collect::<Vec<_>>();
    assert_eq!(as_bf16, rounded(|x| bf16::from_f32(x).to_f32()));
    assert_eq!(as_f16, rounded(|x| half::f16::from_f32(x).to_f32()));
    assert_ne!(as_bf16, as_f16);
}

#[test]
fn a_header_of_any_length_will_do() {
    // Old writers did not pad the header, and the numbers then lie at odd addresses.
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
        let dir = written(&Spec { dtype, ..spec() });
        let before = logits(dir.path());
        let file = dir.path().join(WEIGHTS);
        let mut bytes = fs::read(&file).expect("the weights");
        let length = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes"));
        bytes[..8].copy_from_slice(&(length + 1).to_le_bytes());
        bytes.insert(8 + length as usize, b' ');
        fs::write(&file, bytes).expect("a file of ours");
        assert_eq!(before, logits(dir.path()), "{dtype:?}");
    }
}

#[test]
fn theta_is_found_in_both_places() {
    let spec = Spec { rope_theta: 12_345.0, ..spec() };
    let top = written(&spec);
    let inner = written(&Spec { rope_layout: RopeLayout::Parameters, ..spec });
    for dir in [&top, &inner] {
        let checkpoint = Checkpoint::open(dir.path()).expect("a checkpoint");
        assert_eq!(checkpoint.config().rope_theta, 12_345.0);
    }
    assert_eq!(logits(top.path()), logits(inner.path()));

    let both = |inner: f64| {
        edit_json(&top.path().join("config.json"), |config| {
            config["rope_parameters"] = json!({ "rope_theta": inner, "rope_type": "default" });
        });
        load(top.path())
    };
    assert!(both(12_345.0).is_ok());
    let message = both(10_000.0).expect_err("a contradiction").to_string();
    for part in ["rope_parameters.rope_theta", "10000", "12345"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn heads_are_tied_or_not_as_the_config_says() {
    let tied = written(&spec());
    let tied_logits = logits(tied.path());
    let untied = written(&Spec { tied: false, ..spec() });
    assert_ne!(tied_logits, logits(untied.path()));

    // A tied head that is written all the same, as some tools do; in its own type, too.
    let equal = with_tensors(|tensors| {
        tensors.insert(HEAD.into(), tensors[EMBEDDING].clone());
    });
    assert_eq!(tied_logits, logits(equal.path()));
    edit_tensors(&equal.path().join(WEIGHTS), |tensors| {
        let head = tensors.get_mut(HEAD).expect("just added");
        head.dtype = safetensors::Dtype::F32;
        let pairs = head.bytes.as_chunks::<2>().0.iter();
        head.bytes = pairs.flat_map(|b| bf16::from_le_bytes(*b).to_f32().to_le_bytes()).collect();
    });
    assert_eq!(tied_logits, logits(equal.path()));

    let other = with_tensors(|tensors| {
        let mut head = tensors[EMBEDDING].clone();
        head.bytes[7] ^= 1;
        tensors.insert(HEAD.into(), head);
    });
    assert_eq!(problems(other.path()), [Problem::UntiedHead { name: HEAD.into() }]);

    // Where the config leaves it open, the files decide.
    for (dir, want) in [(&tied, tied_logits), (&untied, logits(untied.path()))] {
        edit_json(&dir.path().join("config.json"), |config| {
            config.as_object_mut().expect("an object").remove("tie_word_embeddings");
        });
        assert_eq!(logits(dir.path()), want);
    }
}

#[test]
fn generation_config_may_be_absent_and_goes_before_the_config() {
    let dir = written(&spec());
    let eos = |dir: &Path| load(dir).expect("a checkpoint").eos_token_ids().to_vec();
    let first = (300 - 3 - 26) as u32;
    assert_eq!(eos(dir.path()), [first + 2, first]);
    fs::remove_file(dir.path().join("generation_config.json")).expect("a file of ours");
    assert_eq!(eos(dir.path()), [first + 2]);
    edit_json(&dir.path().join("config.json"), |config| config["eos_token_id"] = Value::Null);
    assert!(eos(dir.path()).is_empty());
}

#[test]
fn progress_ends_with_every_byte() {
    let dir = written(&spec());
    let checkpoint = Checkpoint::open(dir.path()).expect("a checkpoint");
    let mut heard = Vec::new();
    let mut hear = |p: Progress<'_>| heard.push((p.what.to_string(), p.done, p.total));
    checkpoint.audit(&mut hear).expect("a whole checkpoint");
    let bytes: usize = checkpoint.tensors().iter().map(|t| t.bytes().len()).sum();
    assert!(heard.is_sorted_by_key(|(_, done, _)| *done));
    assert!(heard.iter().any(|(what, ..)| what == UP));
    assert_eq!(heard.last(), Some(&("weights".to_string(), bytes as u64, bytes as u64)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// No dimension has to be a multiple of anything but what the config's rules say.
    #[test]
    fn models_of_any_dimensions_load_and_run(
        (hidden_size, intermediate_size, num_hidden_layers) in (1usize..70, 1usize..70, 1usize..3),
        (num_key_value_heads, group, half_head) in (1usize..4, 1usize..5, 1usize..20),
        vocab_size in 285usize..400,
        tied in any::<bool>(),
        dtype in select(vec![Dtype::Bf16, Dtype::F16, Dtype::F32]),
        precision in select(vec![Precision::Bf16, Precision::F32]),
    ) {
        let dir = written(&Spec {
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads: num_key_value_heads * group,
            num_key_value_heads,
            head_dim: 2 * half_head,
            vocab_size,
            tied,
            dtype,
            ..spec()
        });
        let options = ModelOptions { precision, ..ModelOptions::default() };
        let checkpoint = Checkpoint::open(dir.path()).expect("a checkpoint");
        let model = Model::load(&checkpoint, &options).expect("a model");
        let mut sequence = model.sequence().expect("main memory");
        let output = sequence.extend(Input::Tokens(&[1, 2, 3]), Readout::ALL_LOGITS);
        prop_assert_eq!(output.expect("finite logits").logits.len(), 3 * vocab_size);
    }
}

// === Configs that do not fit ===

#[test]
fn unsupported_features_are_refused_by_name() {
    let default = "\"default\"";
    let full = "full attention in every layer";
    let stored = "bf16, f16 or f32 weights";
    let cases = [
        ("model_type", json!("llama"), unsupported("model_type", "\"llama\"", "\"qwen3\"")),
        ("hidden_act", json!("gelu"), unsupported("hidden_act", "\"gelu\"", "\"silu\"")),
        ("attention_bias", json!(true), unsupported("attention_bias", "true", "false")),
        ("use_sliding_window", json!(true), unsupported("use_sliding_window", "true", "false")),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            unsupported("layer_types", r#"["full_attention","sliding_attention"]"#, full),
        ),
        (
            "quantization_config",
            json!({ "bits": 4 }),
            unsupported("quantization_config", r#"{"bits":4}"#, stored),
        ),
        (
            "rope_scaling",
            json!({ "rope_type": "yarn", "factor": 4.0 }),
            unsupported("rope_scaling.rope_type", "\"yarn\"", default),
        ),
        (
            "rope_scaling",
            json!({ "type": "linear", "factor": 2.0 }),
            unsupported("rope_scaling.type", "\"linear\"", default),
        ),
        (
            "rope_parameters",
            json!({ "rope_type": "yarn", "rope_theta": 1e6 }),
            unsupported("rope_parameters.rope_type", "\"yarn\"", default),
        ),
        (
            "rope_parameters",
            json!({ "rope_type": "default", "partial_rotary_factor": 0.5 }),
            unsupported("rope_parameters.partial_rotary_factor", "0.5", "1.0"),
        ),
        ("partial_rotary_factor", json!(0.5), unsupported("partial_rotary_factor", "0.5", "1.0")),
    ];
    check_config_cases(&cases);
}

#[test]
fn fields_out_of_range_are_refused_by_name() {
    let whole =
        |max: u32, found: &str| format!("expected a whole number from 1 to {max}, found {found}");
    let dim = 1 << 24;
    let bad = bad_field;
    let cases = [
        ("head_dim", json!(5), bad("head_dim", "5 is odd: rotary embedding needs pairs")),
        (
            "num_key_value_heads",
            json!(3),
            bad("num_key_value_heads", "3 does not divide the 4 attention heads"),
        ),
        ("num_attention_heads", json!("4"), bad("num_attention_heads", &whole(dim, "\"4\""))),
        ("hidden_size", json!(0), bad("hidden_size", &whole(dim, "0"))),
        ("hidden_size", Value::Null, bad("hidden_size", "is missing")),
        ("intermediate_size", json!(1.5), bad("intermediate_size", &whole(dim, "1.5"))),
        ("vocab_size", json!(-1), bad("vocab_size", &whole(dim, "-1"))),
        ("num_hidden_layers", json!(1025), bad("num_hidden_layers", &whole(1024, "1025"))),
        (
            "head_dim",
            json!(1 << 23),
            bad("head_dim", "8388608 times 4 attention heads is more than 16777216"),
        ),
        (
            "rms_norm_eps",
            json!(1e-46),
            bad("rms_norm_eps", "expected a number between 0 and 1, found 1e-46"),
        ),
        (
            "rope_theta",
            Value::Null,
            bad("rope_theta", "is missing (at the top, in rope_parameters and in rope_scaling)"),
        ),
        (
            "rope_theta",
            json!("1e6"),
            bad("rope_theta", "expected a number from 1 to 1e18, found \"1e6\""),
        ),
        (
            "rope_parameters",
            json!({ "rope_theta": 1e4 }),
            bad(
                "rope_parameters.rope_theta",
                "is 10000, but another place in the file says 1000000",
            ),
        ),
        ("rope_scaling", json!("yarn"), bad("rope_scaling", "expected an object, found \"yarn\"")),
        (
            "tie_word_embeddings",
            json!("no"),
            bad("tie_word_embeddings", "expected true or false, found \"no\""),
        ),
        ("eos_token_id", json!([1, "x"]), bad("eos_token_id", "expected a token id, found \"x\"")),
    ];
    check_config_cases(&cases);
}

fn check_config_cases(cases: &[(&str, Value, Problem)]) {
    let dir = written(&spec());
    let file = dir.path().join("config.json");
    let whole = fs::read(&file).expect("the config");
    for (field, value, problem) in cases {
        fs::write(&file, &whole).expect("a file of ours");
        edit_json(&file, |config| config[*field] = value.clone());
        assert_eq!(problems(dir.path()), std::slice::from_ref(problem));
    }
}

#[test]
fn generation_config_fields_are_refused_by_name() {
    let dir = written(&spec());
    let file = dir.path().join("generation_config.json");
    let cases = [
        (json!({ "temperature": "hot" }), "temperature", "expected a number, found \"hot\""),
        (json!({ "temperature": 1e300 }), "temperature", "expected a number, found 1e+300"),
        (json!({ "top_k": 2.5 }), "top_k", "expected a whole number, found 2.5"),
        (json!({ "top_k": -1 }), "top_k", "expected a whole number, found -1"),
        (json!({ "do_sample": 1 }), "do_sample", "expected true or false, found 1"),
        (json!({ "eos_token_id": -1 }), "eos_token_id", "expected a token id, found -1"),
        (json!({ "eos_token_id": 300 }), "eos_token_id", "300 is not in the vocabulary of 300"),
        (
            json!({ "eos_token_id": [1, 999] }),
            "eos_token_id",
            "999 is not in the vocabulary of 300",
        ),
    ];
    for (text, field, reason) in cases {
        fs::write(&file, text.to_string()).expect("a file of ours");
        let field = format!("generation_config.json: {field}");
        assert_eq!(problems(dir.path()), [bad_field(&field, reason)]);
    }
    fs::write(&file, r#"{ "top_k": 20.0, "temperature": null }"#).expect("a file of ours");
    let checkpoint = Checkpoint::open(dir.path()).expect("whole numbers may have a decimal point");
    assert_eq!(checkpoint.generation().top_k, Some(20));

    fs::remove_file(file).expect("a file of ours");
    edit_json(&dir.path().join("config.json"), |config| config["eos_token_id"] = json!(300));
    let reason = "300 is not in the vocabulary of 300";
    assert_eq!(problems(dir.path()), [bad_field("config.json: eos_token_id", reason)]);
}

#[test]
fn text_that_is_not_json_is_refused_with_the_place() {
    for name in ["config.json", "generation_config.json"] {
        for (text, reason) in [
            ("{ \"a\": 1,\n oops }", "not JSON: key must be a string at line 2 column 2"),
            ("", "not JSON: EOF while parsing a value at line 1 column 0"),
            ("[1]", "not a JSON object"),
        ] {
            let dir = written(&spec());
            fs::write(dir.path().join(name), text).expect("a file of ours");
            assert_eq!(problems(dir.path()), [bad_field(name, reason)]);
        }
        let dir = written(&spec());
        fs::write(dir.path().join(name), b"{\"\xff\": 1}").expect("a file of ours");
        let error = refused(dir.path());
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(name)), "{error}");
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }
}

// === Tensors that do not fit ===

#[test]
fn tensors_that_do_not_fit_are_named_with_their_shapes() {
    let wrong_shape = |name: &str, expected: &[usize], found: &[usize]| Problem::WrongShape {
        name: name.into(),
        expected: expected.into(),
        found: found.into(),
    };

    let missing = with_tensors(|tensors| drop(tensors.remove(UP)));
    let problem = Problem::MissingTensor { name: UP.into(), expected: vec![12, 8] };
    assert_eq!(problems(missing.path()), [problem]);

    let extra = "model.layers.0.self_attn.q_proj.bias";
    let with_extra = with_tensors(|tensors| {
        tensors.insert(extra.into(), tensors["model.norm.weight"].clone());
        // A buffer that old files have; it follows from the config.
        let buffer = "model.layers.0.self_attn.rotary_emb.inv_freq";
        tensors.insert(buffer.into(), tensors["model.norm.weight"].clone());
    });
    assert_eq!(problems(with_extra.path()), [Problem::ExtraTensor { name: extra.into() }]);

    let transposed = with_tensors(|tensors| {
        tensors.get_mut(UP).expect("a tensor").shape.reverse();
    });
    assert_eq!(problems(transposed.path()), [wrong_shape(UP, &[12, 8], &[8, 12])]);

    let flat = with_tensors(|tensors| tensors.get_mut(UP).expect("a tensor").shape = vec![96]);
    assert_eq!(problems(flat.path()), [wrong_shape(UP, &[12, 8], &[96])]);

    let vocabulary = written(&spec());
    let config = vocabulary.path().join("config.json");
    edit_json(&config, |config| config["vocab_size"] = json!(301));
    assert_eq!(problems(vocabulary.path()), [wrong_shape(EMBEDDING, &[301, 8], &[300, 8])]);

    // One layer less in the config: all of the layer is too much.
    let layers = written(&spec());
    edit_json(&layers.path().join("config.json"), |config| config["num_hidden_layers"] = json!(1));
    let found = problems(layers.path());
    assert_eq!(found.len(), 11);
    assert!(found.contains(&Problem::ExtraTensor { name: UP.into() }));

    let integers = with_tensors(|tensors| {
        let tensor = tensors.get_mut(UP).expect("a tensor");
        tensor.dtype = safetensors::Dtype::I32;
        tensor.bytes.extend_from_within(..);
    });
    let problem = Problem::WrongDtype { name: UP.into(), found: "I32".into() };
    assert!(problem.to_string().contains("I32, expected BF16, F16 or F32"), "{problem}");
    assert_eq!(problems(integers.path()), [problem]);
}

#[test]
fn numbers_that_are_none_are_found_where_they_are() {
    let bits = |dtype: Dtype, number: f32| match dtype {
        Dtype::Bf16 => bf16::from_f32(number).to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(number).to_le_bytes().to_vec(),
        Dtype::F32 => number.to_le_bytes().to_vec(),
    };
    for dtype in [Dtype::Bf16, Dtype::F16, Dtype::F32] {
        let dir = written(&Spec { dtype, ..spec() });
        let file = dir.path().join(WEIGHTS);
        for (number, index) in [(f32::NAN, 0), (f32::INFINITY, 41), (f32::NEG_INFINITY, 95)] {
            let mut before = Vec::new();
            edit_tensors(&file, |tensors| {
                let bytes = &mut tensors.get_mut(UP).expect("a tensor").bytes;
                before.clone_from(bytes);
                let number = bits(dtype, number);
                bytes[index * number.len()..][..number.len()].copy_from_slice(&number);
                // Only the first is reported.
                let last = bytes.len() - number.len();
                bytes[last..].copy_from_slice(&number);
            });
            let problem = Problem::NotFinite { name: UP.into(), index };
            assert!(problem.to_string().ends_with(&format!("index {index}")), "{problem}");
            assert_eq!(problems(dir.path()), [problem], "{dtype:?}");
            edit_tensors(&file, |tensors| tensors.get_mut(UP).expect("a tensor").bytes = before);
        }
        assert!(load(dir.path()).is_ok(), "the largest finite numbers are fine");
    }
}

// === Several at once ===

#[test]
fn all_problems_are_reported_together() {
    let dir = with_tensors(|tensors| {
        tensors.remove("model.norm.weight");
        tensors.get_mut(UP).expect("a tensor").shape.reverse();
        let mut head = tensors[EMBEDDING].clone();
        head.bytes[7] ^= 1;
        tensors.insert(HEAD.into(), head);
        let nan = &mut tensors.get_mut("model.layers.0.self_attn.q_norm.weight").expect("a tensor");
        nan.bytes[2..4].copy_from_slice(&[0xC0, 0x7F]);
        let integers = tensors.get_mut("model.layers.0.self_attn.k_norm.weight").expect("a tensor");
        integers.dtype = safetensors::Dtype::I16;
        tensors.insert("model.other".into(), tensors[UP].clone());
    });
    let generation = dir.path().join("generation_config.json");
    edit_json(&generation, |config| config["eos_token_id"] = json!(1000));
    let found = problems(dir.path());
    let kinds: Vec<&str> = found
        .iter()
        .map(|problem| match problem {
            Problem::WrongDtype { .. } => "dtype",
            Problem::BadField { .. } => "field",
            Problem::MissingTensor { .. } => "missing",
            Problem::WrongShape { .. } => "shape",
            Problem::ExtraTensor { .. } => "extra",
            Problem::UntiedHead { .. } => "head",
            Problem::NotFinite { .. } => "nan",
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(kinds, ["dtype", "field", "missing", "shape", "extra", "head", "nan"]);

    // What the configs get wrong comes with what the files do, as far as it can be seen without a valid config.
    edit_json(&generation, |config| config["top_k"] = json!("many"));
    edit_json(&dir.path().join("config.json"), |config| {
        config["model_type"] = json!("llama");
        config["num_attention_heads"] = json!("four");
    });
    let found = problems(dir.path());
    let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert_eq!(found.len(), 4, "{text}");
    for part in ["model_type", "num_attention_heads", "top_k", "k_norm.weight is stored as I16"] {
        assert!(text.contains(part), "{text}");
    }
    fs::remove_file(dir.path().join(WEIGHTS)).expect("a file of ours");
    let text = refused(dir.path()).to_string();
    assert!(text.contains("model_type") && text.contains("no model.safetensors"), "{text}");
}

// === Files that are not there, or broken ===

#[test]
fn missing_files_are_named() {
    let dir = written(&spec());
    fs::remove_file(dir.path().join(WEIGHTS)).expect("a file of ours");
    assert!(matches!(refused(dir.path()), Error::NoWeights { path } if path == dir.path()));
    fs::remove_file(dir.path().join("config.json")).expect("a file of ours");
    let error = refused(dir.path());
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("config.json")), "{error}");
    let nowhere = dir.path().join("nowhere");
    let error = refused(&nowhere).to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn a_truncated_file_says_what_is_missing() {
    let dir = written(&spec());
    let file = dir.path().join(WEIGHTS);
    let whole = fs::read(&file).expect("the weights");
    let header = u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    let data = whole.len() - 8 - header;
    let cases = [
        (0, "0 bytes".to_string()),
        (7, "7 bytes".to_string()),
        (8, format!("{header} bytes, of which 0 are there")),
        (8 + header / 2, format!("{header} bytes, of which {} are there", header / 2)),
        (8 + header, format!("describes {data} bytes of tensors, the file has 0")),
        (whole.len() - 1, format!("describes {data} bytes of tensors, the file has {}", data - 1)),
    ];
    for (length, reason) in cases {
        fs::write(&file, &whole[..length]).expect("a file of ours");
        let error = refused(dir.path());
        assert!(matches!(&error, Error::Safetensors { path, .. } if *path == file), "{error}");
        assert!(error.to_string().contains(&reason), "{error}");
    }
    fs::write(&file, [&whole[..], b"x"].concat()).expect("a file of ours");
    let error = refused(dir.path()).to_string();
    assert!(error.contains(&format!("the file has {}", data + 1)), "{error}");
}

#[test]
fn foreign_files_are_told_from_safetensors() {
    let cases: [(&[u8], &str); 4] = [
        (b"GGUF\x03\0\0\0 and the rest of some other format", "not a safetensors file"),
        (b"PK\x03\x04 a zip archive, as torch.save writes", "not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a safetensors file"),
        (b"\x08\0\0\0\0\0\0\0not JSON", "header: expected"),
    ];
    let dir = written(&spec());
    for (bytes, reason) in cases {
        fs::write(dir.path().join(WEIGHTS), bytes).expect("a file of ours");
        let error = refused(dir.path());
        assert!(matches!(error, Error::Safetensors { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    fs::remove_file(dir.path().join(WEIGHTS)).expect("a file of ours");
    fs::create_dir(dir.path().join(WEIGHTS)).expect("a directory of ours");
    let error = refused(dir.path());
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(WEIGHTS)), "{error}");
}

#[test]
fn headers_may_claim_what_they_like() {
    // Sizes whose sum is more than 64 bits hold, and offsets to match: adding them up must not overflow.
    let mut header = serde_json::Map::new();
    let size = 1u64 << 60;
    for i in 0..16u64 {
        let end = if i == 15 { u64::MAX } else { (i + 1) * size };
        let entry =
            json!({ "dtype": "U8", "shape": [end - i * size], "data_offsets": [i * size, end] });
        header.insert(format!("tensor{i}"), entry);
    }
    let huge = Value::Object(header).to_string();
    let one = |dtype: &str, shape: Value, offsets: Value| {
        json!({ UP: { "dtype": dtype, "shape": shape, "data_offsets": offsets } }).to_string()
    };
    let headers = [
        huge,
        one("BF16", json!([u64::MAX, u64::MAX]), json!([0, 4])),
        one("BF16", json!([u64::MAX / 2]), json!([0, u64::MAX])),
        one("BF16", json!([2]), json!([4, 0])),
        one("BF16", json!([2]), json!([2, 6])),
        one("BF17", json!([2]), json!([0, 4])),
        one("BF16", json!([-2]), json!([0, 4])),
    ];
    let dir = written(&spec());
    for header in headers {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat();
        fs::write(dir.path().join(WEIGHTS), bytes).expect("a file of ours");
        let error = refused(dir.path());
        assert!(matches!(error, Error::Safetensors { .. }), "{header}: {error}");
    }
}

#[test]
fn a_broken_index_is_refused() {
    let sharded = || written(&Spec { max_shard_bytes: Some(1_000), ..spec() });
    let outside = |name: &str| {
        let text = json!({ "weight_map": { UP: name } }).to_string();
        (text, format!("weight_map: {name:?} is not the name of a file beside it"))
    };
    let cases = [
        ("{ \"weight_map\": {".to_string(), "EOF while parsing".to_string()),
        ("{}".to_string(), "missing field `weight_map`".to_string()),
        (json!({ "weight_map": { UP: 1 } }).to_string(), "expected a string".to_string()),
        outside("../model.safetensors"),
        outside("/etc/passwd"),
        outside("sub/model.safetensors"),
        outside("model.safetensors/"),
        outside(".."),
        outside("."),
        outside(""),
    ];
    let dir = sharded();
    for (text, reason) in cases {
        fs::write(dir.path().join(INDEX), text).expect("a file of ours");
        let error = refused(dir.path());
        assert!(matches!(&error, Error::Json { path, .. } if path.ends_with(INDEX)), "{error}");
        assert!(error.to_string().contains(&reason), "{error}");
    }

    let dir = sharded();
    edit_json(&dir.path().join(INDEX), |index| index["weight_map"][UP] = "lost.safetensors".into());
    let error = refused(dir.path());
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("lost.safetensors")));
    assert!(
        error.to_string().contains("although model.safetensors.index.json lists it"),
        "{error}"
    );

    // The index is right about which files there are, but not about what is in them.
    let dir = sharded();
    let mut other = String::new();
    edit_json(&dir.path().join(INDEX), |index| {
        let map = index["weight_map"].as_object_mut().expect("an object");
        let own = map[UP].clone();
        other = map
            .values()
            .find(|file| **file != own)
            .expect("several")
            .as_str()
            .expect("a name")
            .into();
        map[UP] = other.as_str().into();
    });
    let reason = format!("says that {other} holds {UP}, which it does not");
    let missing = Problem::MissingTensor { name: UP.into(), expected: vec![12, 8] };
    let field = format!("{INDEX}: weight_map");
    assert_eq!(problems(dir.path()), [bad_field(&field, &reason), missing]);

    // Tensors in a shard that the index does not speak of count as well.
    let dir = sharded();
    edit_json(&dir.path().join(INDEX), |index| {
        index["weight_map"]
            .as_object_mut()
            .expect("an object")
            .remove("model.layers.1.input_layernorm.weight");
    });
    assert!(load(dir.path()).is_ok());
}
