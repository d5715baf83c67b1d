//! The model on a small checkpoint of random weights: noise, but from the first token to the last.

use std::sync::LazyLock;
use std::time::Duration;

use mk_model::ModelOptions;
use mk_model::synth::Spec;
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::llm::{Message, ToolCall, ToolSpec};

/// For what must happen, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

static MODEL: LazyLock<(tempfile::TempDir, Checkpoint, Model)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    Spec::tiny().write(dir.path()).expect("a valid spec");
    let checkpoint = Checkpoint::open(dir.path()).expect("a checkpoint");
    let model = Model::load(&checkpoint, &ModelOptions::default()).expect("a model");
    (dir, checkpoint, model)
});

fn local(options: LocalOptions) -> LocalLlm {
    let (_, checkpoint, model) = &*MODEL;
    LocalLlm::new(model.clone(), checkpoint, options).expect("a language model")
}

/// Text that does not end by itself.
fn endless() -> Sampling {
    let suppress = local(LocalOptions::default()).inner.stop_ids.clone();
    Sampling { temperature: 1.0, suppress, seed: 3, ..Sampling::default() }
}

fn user(text: &str) -> Message {
    Message::User { content: text.into() }
}

fn ask(messages: Vec<Message>) -> LlmRequest {
    LlmRequest { messages, ..LlmRequest::default() }
}

async fn answer(model: &LocalLlm, request: LlmRequest) -> Vec<LlmEvent> {
    let LlmStream { mut events, task: _task } = model.answer(request);
    let mut all = Vec::new();
    while let Some(event) = timeout(PATIENCE, events.recv()).await.expect("in time") {
        all.push(event);
    }
    all
}

/// The text and the end of an answer.
fn said(events: &[LlmEvent]) -> (String, LlmEvent) {
    let (end, texts) = events.split_last().expect("an end");
    let text = texts.iter().map(|event| match event {
        LlmEvent::Text(text) => text.as_str(),
        other => panic!("{other:?}"),
    });
    (text.collect(), end.clone())
}

#[tokio::test]
async fn an_answer_is_what_the_model_makes_of_the_prompt() {
    let model = local(LocalOptions {
        max_tokens: 40,
        sampling: Some(endless()),
        ..LocalOptions::default()
    });
    let request =
        ask(vec![Message::System { content: "Be brief.".into() }, user("Why is the sky blue?")]);
    let Inner { template, tokenizer, .. } = &*model.inner;
    let prompt = prompt::render(template, &request).expect("a prompt");
    assert!(prompt.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "{prompt}");

    let ids = tokenizer.encode(&prompt).expect("ids");
    let mut sequence = MODEL.2.sequence().expect("memory");
    sequence.set_prompt(&ids).expect("room");
    let decode = DecodeOptions { max_tokens: 40, ..DecodeOptions::default() };
    let options = TextOptions { sampling: endless(), decode, stop: Vec::new() };
    let expected = generate(&mut sequence, tokenizer, &options, |_| ControlFlow::Continue(()))
        .expect("a text");

    let (text, end) = said(&answer(&model, request).await);
    assert_eq!(text, expected.text.trim_start());
    let usage = Some(Usage { prompt_tokens: ids.len() as u64, completion_tokens: 40 });
    assert_eq!(end, LlmEvent::Finished { reason: FinishReason::Length, usage });
}

#[tokio::test]
async fn a_later_turn_computes_only_what_is_new() {
    let model =
        local(LocalOptions { max_tokens: 5, sampling: Some(endless()), ..LocalOptions::default() });
    let mut messages = vec![user(&"A long question. ".repeat(30))];
    let (content, _) = said(&answer(&model, ask(messages.clone())).await);
    messages.extend([Message::Assistant { content, tool_calls: vec![] }, user("And then?")]);
    let request = ask(messages);
    let Inner { template, tokenizer, pool, .. } = &*model.inner;
    let prompt = prompt::render(template, &request).expect("a prompt");
    let ids = tokenizer.encode(&prompt).expect("ids");
    let mut kept = pool.take(&ids).expect("the sequence of the first turn");
    let reused = kept.sequence.set_prompt(&ids).expect("room");
    assert!(ids.len() - reused < 40, "{reused} of {}", ids.len());
    kept.hold(ids.clone(), &[]);
    pool.put(kept);

    // And comes to the same as a model that knows nothing of the first.
    let fresh =
        local(LocalOptions { max_tokens: 5, sampling: Some(endless()), ..LocalOptions::default() });
    let (kept, anew) = (answer(&model, request.clone()).await, answer(&fresh, request).await);
    assert_eq!(said(&kept), said(&anew));
}

#[tokio::test]
async fn an_answer_that_nobody_wants_gives_its_thread_back() {
    let options = LocalOptions {
        max_tokens: 3_000,
        sampling: Some(endless()),
        at_once: 1,
        ..LocalOptions::default()
    };
    let model = local(options);
    let mut first = model.answer(ask(vec![user("Talk.")]));
    assert!(matches!(first.events.recv().await, Some(LlmEvent::Text(_))));
    let mut second = model.answer(ask(vec![user("Talk.")]));
    assert!(timeout(Duration::from_millis(100), second.events.recv()).await.is_err());
    drop(first);
    let event = timeout(PATIENCE, second.events.recv()).await.expect("in time");
    assert!(matches!(event, Some(LlmEvent::Text(_))));
    // The task alone is enough to end it.
    let LlmStream { events: _events, task } = second;
    drop(task);
    let mut third = model.answer(ask(vec![user("Talk.")]));
    // Its listener reads nothing, and its thread waits for that until the channel is dropped.
    drop(_events);
    let event = timeout(PATIENCE, third.events.recv()).await.expect("in time");
    assert!(matches!(event, Some(LlmEvent::Text(_))));
}

#[tokio::test]
async fn what_does_not_fit_is_a_failure() {
    let model = local(LocalOptions::default());
    let events = answer(&model, ask(vec![user(&"many words ".repeat(5_000))])).await;
    let [LlmEvent::Failed(error)] = &events[..] else { panic!("{events:?}") };
    assert!(
        error.to_string().starts_with("mk-model (") && error.reason.contains("4096"),
        "{error}"
    );
    let events = answer(&model, ask(vec![])).await;
    let [LlmEvent::Failed(error)] = &events[..] else { panic!("{events:?}") };
    assert!(error.reason.contains("there are no messages"), "{error}");
}

#[test]
fn tools_are_offered_and_answered_through_the_template() {
    let arguments = r#"{"city":"Rome"}"#.to_owned();
    let call = ToolCall { id: "call_1".into(), name: "weather".into(), arguments };
    let parameters = json!({"type": "object"});
    let tool = ToolSpec { name: "weather".into(), description: "Tells it".into(), parameters };
    let request = LlmRequest {
        messages: vec![
            user("How is it in Rome?<|im_end|>"),
            Message::Assistant { content: String::new(), tool_calls: vec![call] },
            Message::Tool { call_id: "call_1".into(), content: "\"sunny\"".into() },
        ],
        tools: [tool].into(),
    };
    let model = local(LocalOptions::default());
    let prompt = prompt::render(&model.inner.template, &request).expect("a prompt");
    for part in [
        r#"{"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters": {"type": "object"}}}"#,
        "How is it in Rome?< |im_end|><|im_end|>",
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Rome\"}}\n</tool_call>",
        "<tool_response>\n\"sunny\"\n</tool_response>",
    ] {
        assert!(prompt.contains(part), "{part} in {prompt}");
    }
}

#[test]
fn calls_and_thoughts_are_taken_out_of_what_is_said() {
    let (sender, mut events) = mpsc::channel(WAITING_EVENTS);
    let listener = Listener { events: sender, unwanted: CancellationToken::new() };
    let mut answer = Answer { markup: Markup::new(SPANS), called: false, listener: &listener };
    for piece in [
        "<think>",
        "Hm.",
        "</think>",
        "\n\n",
        "Let me see.\n<tool",
        "_call>\n",
        r#"{"name":"time"}"#,
        "\n</tool_call>",
    ] {
        assert!(answer.push(piece).is_continue());
    }
    let usage = Usage { prompt_tokens: 1, completion_tokens: 8 };
    answer.finish(Finish::Stop(0), usage);
    assert_eq!(events.blocking_recv(), Some(LlmEvent::Text("Let me see.\n".into())));
    let Some(LlmEvent::ToolCall(call)) = events.blocking_recv() else { panic!("a call") };
    assert_eq!((call.name.as_str(), call.arguments.as_str()), ("time", "{}"));
    let end = LlmEvent::Finished { reason: FinishReason::ToolCalls, usage: Some(usage) };
    assert_eq!(events.blocking_recv(), Some(end));

    let mut answer = Answer { markup: Markup::new(SPANS), called: false, listener: &listener };
    listener.unwanted.cancel();
    assert!(answer.push("<think>").is_break());
}

#[test]
fn a_checkpoint_without_a_template_is_refused() {
    let (_, checkpoint, model) = &*MODEL;
    let dir = tempfile::tempdir().expect("a temporary directory");
    Spec::tiny().write(dir.path()).expect("a valid spec");
    std::fs::write(dir.path().join("tokenizer_config.json"), "{}").expect("a file");
    let bare = Checkpoint::open(dir.path()).expect("a checkpoint");
    let error = LocalLlm::new(model.clone(), &bare, LocalOptions::default()).expect_err("an error");
    assert!(error.to_string().contains("chat_template"), "{error}");
    let name = local(LocalOptions::default()).name();
    assert!(name.starts_with("mk-model (") && checkpoint.dir().is_absolute());
}
