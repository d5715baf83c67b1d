//! Files of any content: reading them gives a value or a typed error, without a panic and without more memory than the
//! file itself accounts for.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use common::{spec, written};
use mk_model::checkpoint::parse_index;
use mk_model::synth::Spec;
use mk_model::{Checkpoint, Config, Error, GenerationConfig, Problem};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

// === Memory ===

/// The system's allocator, with a count of what the current thread asks for.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // A thread that ends allocates after its locals are gone; nobody counts there.
    let _ = ALLOCATED.try_with(|all| all.set(all.get().saturating_add(bytes)));
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above, and the pointer came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `read` returns, if it allocated no more than reading `size` bytes may: a fixed amount for messages and names,
/// and some multiple for the JSON tree.
fn within_bounds<T>(size: usize, read: impl FnOnce() -> T) -> T {
    let before = ALLOCATED.get();
    let result = read();
    let used = ALLOCATED.get() - before;
    assert!(used <= (256 << 10) + 256 * size, "{used} bytes allocated for {size} bytes of input");
    result
}

// === Files ===

fn valid(name: &str) -> Vec<u8> {
    let sharded = name.ends_with("index.json");
    let dir = written(&Spec { max_shard_bytes: sharded.then_some(1_000), ..spec() });
    fs::read(dir.path().join(name)).expect("a file of the checkpoint")
}

static CONFIG: LazyLock<Vec<u8>> = LazyLock::new(|| valid("config.json"));
static GENERATION: LazyLock<Vec<u8>> = LazyLock::new(|| valid("generation_config.json"));
static INDEX: LazyLock<Vec<u8>> = LazyLock::new(|| valid("model.safetensors.index.json"));
static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| valid("model.safetensors"));

#[derive(Debug, Clone)]
enum Edit {
    Set(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let pieces = select(vec![
        &b"{"[..],
        b"[",
        b"]",
        b"}",
        b"\"",
        b",",
        b":",
        b"null",
        b"true",
        b"-1",
        b"0",
        b"1e999",
        b"0.5",
        b"18446744073709551615",
        b"9223372036854775807",
        b"\\u0000",
        b"\xff",
    ]);
    prop_oneof![
        any::<u8>().prop_map(Edit::Set),
        prop_oneof![pieces.prop_map(<[u8]>::to_vec), vec(any::<u8>(), 1..8)].prop_map(Edit::Insert),
        (1usize..64).prop_map(Edit::Remove),
        (1usize..64).prop_map(Edit::Repeat),
    ]
}

fn edits() -> impl Strategy<Value = Vec<(Index, Edit)>> {
    vec((any::<Index>(), edit()), 1..5)
}

/// Changes `bytes` at places within its first `reach`.
fn mutate(bytes: &[u8], reach: usize, edits: &[(Index, Edit)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, edit) in edits {
        let reach = reach.min(bytes.len());
        if reach == 0 {
            break;
        }
        let at = place.index(reach);
        let until = |length: &usize| (at + length).min(bytes.len());
        match edit {
            Edit::Set(byte) => bytes[at] = *byte,
            Edit::Insert(piece) => drop(bytes.splice(at..at, piece.iter().copied())),
            Edit::Remove(length) => drop(bytes.drain(at..until(length))),
            Edit::Repeat(length) => {
                let piece = bytes[at..until(length)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

/// Values that a field of a config may turn out to have.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0u64..20).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(vec!["default", "yarn", "qwen3", "silu", ""]).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = select(vec!["rope_theta", "rope_type", "type", "partial_rotary_factor", "x"]);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((key.prop_map(String::from), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

// === What must hold ===

fn check_config(text: &str) {
    match within_bounds(text.len(), || Config::from_json(text)) {
        Ok(config) => {
            assert_eq!(config.group_size() * config.kv_size(), config.q_size());
            assert_eq!(config.head_dim % 2, 0);
            assert!(config.rms_norm_eps > 0.0 && config.rope_theta.is_finite());
            assert!(config.layer_weights() > 0);
        }
        Err(problems) => check_problems(&problems),
    }
}

fn check_generation(text: &str) {
    match within_bounds(text.len(), || GenerationConfig::from_json(text)) {
        Ok(config) => {
            let numbers =
                [config.temperature, config.top_p, config.min_p, config.repetition_penalty];
            assert!(numbers.into_iter().flatten().all(f32::is_finite));
        }
        Err(problems) => check_problems(&problems),
    }
}

fn check_problems(problems: &[Problem]) {
    assert!(!problems.is_empty());
    assert!(problems.iter().all(|problem| !problem.to_string().is_empty()));
}

fn check_index(text: &str) {
    if let Ok(map) = within_bounds(text.len(), || parse_index(text)) {
        let dir = Path::new("/dir");
        assert!(map.values().all(|file| dir.join(file).parent() == Some(dir)));
    }
}

/// Loads a directory with these weights; whether it passes its audit.
fn check_weights(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("config.json"), &*CONFIG).expect("a file of ours");
    fs::write(dir.path().join("model.safetensors"), bytes).expect("a file of ours");
    let size = bytes.len();
    match within_bounds(size, || Checkpoint::open(dir.path())) {
        Ok(checkpoint) => {
            let all: usize = checkpoint.tensors().iter().map(|t| t.bytes().len()).sum();
            assert!(all < size);
            match within_bounds(size, || checkpoint.audit(&mut |_| {})) {
                Ok(()) => true,
                Err(Error::Checkpoint { problems, .. }) => {
                    check_problems(&problems);
                    false
                }
                Err(other) => panic!("{other}"),
            }
        }
        Err(Error::Safetensors { reason, .. }) => {
            assert!(!reason.is_empty());
            false
        }
        Err(other) => panic!("{other}"),
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[test]
fn the_files_that_the_tests_begin_with_are_valid() {
    assert!(Config::from_json(&lossy(&CONFIG)).is_ok());
    assert!(GenerationConfig::from_json(&lossy(&GENERATION)).is_ok());
    assert!(parse_index(&lossy(&INDEX)).is_ok());
    assert!(check_weights(&WEIGHTS));
}

#[test]
fn deep_nesting_is_no_way_to_the_end_of_the_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        check_config(&deep);
        check_generation(&deep);
        check_index(&deep);
        let field = format!("{{\"rope_parameters\": {deep}, \"weight_map\": {deep}}}");
        check_config(&field);
        check_index(&field);
        let header = [&(deep.len() as u64).to_le_bytes(), deep.as_bytes()].concat();
        assert!(!check_weights(&header));
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        check_config(&text);
        check_generation(&text);
        check_index(&text);
    }

    #[test]
    fn any_edit_of_a_json_file_is_read_or_refused(edits in edits()) {
        check_config(&lossy(&mutate(&CONFIG, usize::MAX, &edits)));
        check_generation(&lossy(&mutate(&GENERATION, usize::MAX, &edits)));
        check_index(&lossy(&mutate(&INDEX, usize::MAX, &edits)));
    }

    #[test]
    fn any_value_of_any_field_is_read_or_refused(
        fields in vec((any::<Index>(), value()), 1..4),
        rope in proptest::option::of(value()),
    ) {
        for (file, check) in
            [(&*CONFIG, check_config as fn(&str)), (&*GENERATION, check_generation), (&*INDEX, check_index)]
        {
            let mut config: serde_json::Map<String, Value> =
                serde_json::from_slice(file).expect("JSON");
            let names: Vec<String> = config.keys().cloned().collect();
            for (place, value) in &fields {
                config.insert(place.get(&names).clone(), value.clone());
            }
            if let Some(rope) = &rope {
                config.insert("rope_parameters".into(), rope.clone());
            }
            check(&Value::Object(config).to_string());
        }
    }

    #[test]
    fn any_bytes_are_weights_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(!check_weights(&bytes));
    }

    #[test]
    fn any_edit_of_a_weight_file_is_read_or_refused(edits in edits(), everywhere in any::<bool>()) {
        let reach = if everywhere { usize::MAX } else { 3_000 };
        check_weights(&mutate(&WEIGHTS, reach, &edits));
    }

    #[test]
    fn any_header_is_read_or_refused(
        entries in vec(
            (
                select(vec!["model.norm.weight", "model.embed_tokens.weight", "lm_head.weight", "x"]),
                select(vec!["BF16", "F16", "F32", "I32", "F64", "U8", "BOOL", "F4", "F8_E4M3"]),
                vec(prop_oneof![0u64..9, any::<u64>(), Just(1 << 31), Just(1 << 32), Just(1 << 60)], 0..4),
                prop_oneof![0u64..40, any::<u64>()],
                prop_oneof![0u64..40, any::<u64>()],
            ),
            0..5,
        ),
        chained in any::<bool>(),
        data in vec(any::<u8>(), 0..64),
    ) {
        let mut header = serde_json::Map::new();
        let mut next = 0u64;
        for (name, dtype, shape, start, end) in entries {
            // Offsets that follow on each other, as a valid file's do, get further than any others.
            let offsets = if chained {
                let width = if dtype == "F32" || dtype == "I32" { 4 } else { 2 };
                let size = shape.iter().fold(width, |size: u64, n| size.saturating_mul(*n));
                let start = next;
                next = next.saturating_add(size);
                [start, next]
            } else {
                [start, end]
            };
            header.insert(
                name.into(),
                json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }),
            );
        }
        let header = Value::Object(header).to_string();
        let length = (header.len() as u64).to_le_bytes();
        prop_assert!(!check_weights(&[&length, header.as_bytes(), &data].concat()));
    }

    #[test]
    fn any_header_length_is_believed_only_so_far(length in any::<u64>(), near in 0u64..200) {
        for length in [length, near, 100_000_000 - near] {
            let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
            prop_assert!(!check_weights(&bytes));
        }
    }
}
