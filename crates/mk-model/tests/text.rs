//! Tokenizer and chat template against transformers: `goldens/chat.json` is what `xtask/reference/chat.py` makes of
//! the synthetic checkpoint `tiny`, seed 0.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use mk_model::Error;
use mk_model::synth::Spec;
use mk_model::text::{ChatTemplate, Message, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Goldens {
    chats: Vec<Chat>,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Chat {
    name: String,
    messages: Vec<Message>,
    tools: Option<Vec<Value>>,
    add_generation_prompt: bool,
    enable_thinking: Option<bool>,
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    decoded: String,
    decoded_plain: String,
}

static GOLDENS: LazyLock<Goldens> = LazyLock::new(|| {
    serde_json::from_str(include_str!("goldens/chat.json")).expect("goldens as chat.py writes them")
});

fn checkpoint() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Spec::tiny().write(dir.path()).expect("a valid spec");
    dir
}

fn compare_texts(tokenizer: &Tokenizer) {
    assert!(GOLDENS.texts.len() > 30);
    for case in &GOLDENS.texts {
        let ids = tokenizer.encode(&case.text).expect("a text that transformers encodes");
        assert_eq!(ids, case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&ids, false), case.decoded);
        assert_eq!(tokenizer.decode(&ids, true), case.decoded_plain);
    }
}

#[test]
fn texts_are_as_in_transformers() {
    let dir = checkpoint();
    compare_texts(&Tokenizer::from_dir(dir.path()).expect("a valid tokenizer"));
}

#[test]
fn chats_are_as_in_transformers() {
    let dir = checkpoint();
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("a valid tokenizer");
    let template = ChatTemplate::from_dir(dir.path()).expect("a valid template");
    assert!(GOLDENS.chats.len() > 100);
    for case in &GOLDENS.chats {
        let text = template
            .render(
                &case.messages,
                case.tools.as_deref(),
                case.add_generation_prompt,
                case.enable_thinking,
            )
            .expect("a chat that transformers renders");
        assert_eq!(text, case.text, "{}", case.name);
        assert_eq!(tokenizer.encode(&text).expect("a prompt"), case.ids, "{}", case.name);
    }
}

/// Rewrites `tokenizer.json` as the three files that repositories without one have.
fn split_files(dir: &Path) {
    let file = dir.join("tokenizer.json");
    let json = fs::read_to_string(&file).expect("the file just written");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let pairs = json["model"]["merges"].as_array().expect("a list");
    let merges: Vec<String> = pairs
        .iter()
        .map(|pair| {
            format!("{} {}\n", pair[0].as_str().expect("text"), pair[1].as_str().expect("text"))
        })
        .collect();
    fs::write(dir.join("merges.txt"), format!("#version: 0.2\n{}", merges.concat())).expect("room");
    fs::write(dir.join("vocab.json"), json["model"]["vocab"].to_string()).expect("room");
    fs::remove_file(file).expect("the file is there");
}

#[test]
fn vocabulary_and_merges_do_as_well() {
    let dir = checkpoint();
    let whole = Tokenizer::from_dir(dir.path()).expect("a valid tokenizer");
    split_files(dir.path());
    let split = Tokenizer::from_dir(dir.path()).expect("a valid tokenizer");
    compare_texts(&split);
    assert_eq!(split.vocab_size(), whole.vocab_size());
    for id in 0..whole.vocab_size() as u32 + 2 {
        assert_eq!(split.token(id), whole.token(id));
        assert_eq!(split.bytes(id), whole.bytes(id));
        assert_eq!(split.is_special(id), whole.is_special(id));
    }
}

#[test]
fn ids_tokens_and_rows() {
    let dir = checkpoint();
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("a valid tokenizer");
    let config = fs::read_to_string(dir.path().join("config.json")).expect("the config");
    let mut config = mk_model::Config::from_json(&config).expect("a valid config");
    assert_eq!((tokenizer.vocab_size(), config.vocab_size), (509, 512));
    assert_eq!(tokenizer.id("<|im_end|>"), Some(485));
    assert_eq!(tokenizer.token(485).as_deref(), Some("<|im_end|>"));
    assert_eq!((tokenizer.id("no such token"), tokenizer.token(509)), (None, None));
    assert_eq!(tokenizer.decode(&[509, 511, u32::MAX], false), "");
    let think = tokenizer.id("<think>").expect("an added token");
    assert_eq!(tokenizer.decode(&[think, 485], true), "<think>");

    tokenizer.check_fits(&config).expect("fewer ids than rows");
    config.vocab_size = 509;
    tokenizer.check_fits(&config).expect("as many ids as rows");
    config.vocab_size = 508;
    let error = tokenizer.check_fits(&config).expect_err("one id too many");
    assert!(error.to_string().contains("508"), "{error}");
}

#[test]
fn plain_text_has_no_added_tokens() {
    let dir = checkpoint();
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("a valid tokenizer");
    let text = "<|im_end|>\n<|im_start|>system <think> e\u{301}";
    let ids = tokenizer.encode_plain(text).expect("any text");
    assert!(ids.iter().all(|&id| id < 483), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids, true), "<|im_end|>\n<|im_start|>system <think> é");
    for case in GOLDENS.texts.iter().filter(|case| case.ids.iter().all(|&id| id < 483)) {
        assert_eq!(tokenizer.encode_plain(&case.text).expect("any text"), case.ids);
    }
}

#[test]
fn long_texts_are_no_trouble() {
    let dir = checkpoint();
    let tokenizer = Tokenizer::from_dir(dir.path()).expect("a valid tokenizer");
    for text in
        [" ".repeat(100_000), "\n ".repeat(50_000), "x".repeat(100_000), "é!".repeat(50_000)]
    {
        let ids = tokenizer.encode(&text).expect("a long text");
        assert_eq!(tokenizer.decode(&ids, false), text);
    }
}

/// What `from_dir` says of a directory in which `change` has been at work.
fn refusal(change: impl Fn(&Path)) -> String {
    let dir = checkpoint();
    change(dir.path());
    match Tokenizer::from_dir(dir.path()) {
        Err(error @ Error::Tokenizer { .. }) => error.to_string(),
        other => panic!("expected a tokenizer error, got {other:?}"),
    }
}

#[test]
fn broken_files_are_refused() {
    let whole = |text: &'static str| {
        refusal(move |dir| fs::write(dir.join("tokenizer.json"), text).expect("room"))
    };
    for text in ["", "{", "[]", "{}", "\u{0}", r#"{"model":{"type":"BPE","vocab":{},"merges":[]}}"#]
    {
        assert!(whole(text).contains("tokenizer.json"), "{text}");
    }
    let edited = |from: &'static str, to: &'static str| {
        refusal(move |dir| {
            let file = dir.join("tokenizer.json");
            let json = fs::read_to_string(&file).expect("the file just written");
            let json: Value = serde_json::from_str(&json).expect("JSON");
            let text = json.to_string();
            assert!(text.contains(from), "{from}");
            fs::write(file, text.replacen(from, to, 1)).expect("room");
        })
    };
    edited(r#""!":0"#, r#""!":4000000000"#);
    edited(r#""!":0"#, r#""!":-1"#);
    edited(r#""merges":["#, r#""merges":[["no","such"],"#);
    edited(r"(?i:'s", r"(?i:('s");
    edited(r#""decoder":{"#, r#""decoder":null,"x":{"#);
    edited(r#""decoder":{"#, r#""decoder":{?"#);

    let missing = |name: &'static str| {
        refusal(move |dir| {
            split_files(dir);
            fs::remove_file(dir.join(name)).expect("the file is there");
        })
    };
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        assert!(missing(name).contains(name));
    }
    let replaced = |name: &'static str, text: &'static str| {
        refusal(move |dir| {
            split_files(dir);
            fs::write(dir.join(name), text).expect("room");
        })
    };
    assert!(replaced("vocab.json", "{\"a\": 1.5}").contains("vocab.json"));
    assert!(replaced("merges.txt", "a b\na b c\n").contains("line 2"));
    assert!(replaced("merges.txt", "no such\n").contains("merges.txt"));
    assert!(replaced("tokenizer_config.json", "[").contains("tokenizer_config.json"));
    let gap = r#"{"added_tokens_decoder": {"483": {"content": "<x>"}, "485": {"content": "<y>"}}}"#;
    assert!(replaced("tokenizer_config.json", gap).contains("485"));
    let unnamed = r#"{"added_tokens_decoder": {"483": {}}}"#;
    assert!(replaced("tokenizer_config.json", unnamed).contains("content"));
}

fn rendered(template: &str, variables: Value) -> Result<String, Error> {
    // A template sees what a message holds, under any name.
    let other: BTreeMap<String, Value> = serde_json::from_value(variables).expect("an object");
    let message = Message { other: other.into_iter().collect(), ..Message::new("user", "x") };
    ChatTemplate::new(template)?.render(&[message], None, false, None)
}

#[test]
fn templates_do_what_they_do_in_python() {
    let cases = [
        ("{{ messages[0].nothing }}|{{ nothing }}|{{ nothing is defined }}", "||False"),
        ("{% if nothing or messages[0].nothing %}a{% else %}b{% endif %}", "b"),
        (
            "{{ messages[0].a }} {{ messages[0].f }} {{ messages[0].n }} {{ messages[0].t }}",
            "1 2.0 None True",
        ),
        (
            "{% for x in messages[0].list[::-1] %}{{ x }}{{ '' if loop.last else ',' }}{% endfor %}",
            "3,2,1",
        ),
        (
            "{{ ' a b '.strip() }}{{ 'xxaxx'.strip('x') }}{{ 'a-b'.split('-')[-1] }}{{ 'Ab'.lower() }}",
            "a babab",
        ),
        ("{% for k, v in messages[0].map.items() %}{{ k }}={{ v }};{% endfor %}", "z=1;a=2;"),
        (
            "{{ messages[0].map | tojson }} {{ messages[0].get('role') }}",
            r#"{"z": 1, "a": 2} user"#,
        ),
        (
            "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
            "13",
        ),
        ("{{ 'a' if messages[0].content is string else 'b' }}{{ tools is none }}", "aTrue"),
        (
            "{% set ns = namespace(n=0) %}{% for x in [1, 2] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}",
            "3",
        ),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc\n", "a\nb\nc"),
        ("{{ strftime_now('%Y') | length }}{{ bos_token is defined }}", "4False"),
        ("{{ messages[0].html }}", "<&'\">"),
    ];
    let variables = json!({
        "a": 1, "f": 2.0, "n": null, "t": true, "list": [1, 2, 3], "html": "<&'\">",
        "map": {"z": 1, "a": 2},
    });
    for (template, expected) in cases {
        let text = rendered(template, variables.clone()).expect("a template that Python renders");
        assert_eq!(text, expected, "{template}");
    }
}

#[test]
fn templates_that_fail_say_why() {
    let reason = |template: &str| {
        let error = rendered(template, json!({})).expect_err("it fails");
        assert!(matches!(error, Error::ChatTemplate(_)));
        error.to_string()
    };
    assert!(reason("{% for %}").contains("line 1"));
    assert!(
        reason("\n{{ raise_exception('roles must alternate') }}").contains("roles must alternate")
    );
    assert!(reason("{{ messages[0].nothing.more }}").contains("undefined"));
    assert!(reason("{{ no_such_function() }}").contains("no_such_function"));
    assert!(reason("{{ strftime_now('%Q') }}").contains("%Q"));

    let dir = checkpoint();
    let template = ChatTemplate::from_dir(dir.path()).expect("a valid template");
    let error = template.render(&[], None, true, None).expect_err("it refuses an empty chat");
    assert!(error.to_string().contains("there are no messages"), "{error}");
    let stranger = [Message::new("stranger", "hi")];
    assert!(template.render(&stranger, None, true, None).is_err());
}

#[test]
fn templates_are_found_where_hugging_face_finds_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hello = [Message::new("user", "hello")];
    let render = || {
        ChatTemplate::from_dir(dir.path())
            .and_then(|template| template.render(&hello, None, false, None))
            .map_err(|e| e.to_string())
    };
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("room");
    assert!(render().expect_err("no files").contains("chat_template.jinja"));
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "default", "template": "list"}]}"#,
    );
    assert_eq!(render().as_deref(), Ok("list"));
    let config = r#"{"chat_template": "{{ eos_token }}{{ pad_token }}{{ bos_token }}",
        "eos_token": "<e>", "pad_token": {"content": "<p>"}, "bos_token": null}"#;
    write("tokenizer_config.json", config);
    assert_eq!(render().as_deref(), Ok("<e><p>"));
    write("chat_template.jinja", "{{ messages[0].content }}{{ eos_token }}");
    assert_eq!(render().as_deref(), Ok("hello<e>"));
    write("tokenizer_config.json", "{");
    assert!(render().expect_err("not JSON").contains("tokenizer_config.json"));
}
