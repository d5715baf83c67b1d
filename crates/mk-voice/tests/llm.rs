//! Language models over the wire: the client of OpenAI's chat completions against a double that is true to it, and does
//! everything wrong that a network and a service can.

use std::time::Duration;

use mk_doubles::script::{DeltaSize, Usage as ScriptedUsage};
use mk_doubles::{ChatScript, Doubles, DoublesOptions, Fault, FaultKind, Reply, Service};
use mk_voice::Secret;
use mk_voice::llm::openai::{OpenAi, OpenAiOptions};
use mk_voice::llm::tools::Tools;
use mk_voice::llm::{FinishReason, Llm, LlmError, LlmEvent, LlmRequest, LlmStream, Message, Usage};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

/// For what must happen, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &str = "sk-test-0123456789";
const TEXT: &str = "Bien sûr: 你好, and that's all.";

async fn doubles(replies: Vec<Reply>, faults: Vec<Fault>) -> Doubles {
    let options = DoublesOptions {
        openai_key: Some(KEY.into()),
        chat: ChatScript { replies },
        faults: faults.into(),
        headers: vec!["user-agent".into()],
        ..DoublesOptions::default()
    };
    Doubles::start(options).await.expect("doubles")
}

/// A double that says [`TEXT`], and does one thing wrong.
async fn faulty(kind: &FaultKind) -> Doubles {
    doubles(vec![Reply::say(TEXT)], vec![Fault::next(Service::Chat, kind.clone())]).await
}

fn options(doubles: &Doubles) -> OpenAiOptions {
    OpenAiOptions {
        base_url: doubles.openai_url(),
        key: Some(Secret::new(KEY)),
        model: "gpt-4o-mini".into(),
        first_token_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        ..OpenAiOptions::default()
    }
}

fn model(options: OpenAiOptions) -> OpenAi {
    OpenAi::new(options).expect("a client")
}

fn user(text: &str) -> LlmRequest {
    let content = text.into();
    LlmRequest { messages: vec![Message::User { content }], ..LlmRequest::default() }
}

async fn next(stream: &mut LlmStream) -> Option<LlmEvent> {
    timeout(PATIENCE, stream.events.recv()).await.expect("in time")
}

async fn answer(model: &OpenAi, request: LlmRequest) -> Vec<LlmEvent> {
    let mut stream = model.answer(request);
    let mut events = Vec::new();
    while let Some(event) = next(&mut stream).await {
        events.push(event);
    }
    events
}

fn text(events: &[LlmEvent]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        LlmEvent::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn retries(events: &[LlmEvent]) -> usize {
    events.iter().filter(|event| matches!(event, LlmEvent::Retried { .. })).count()
}

fn is_whole(events: &[LlmEvent]) -> bool {
    text(events) == TEXT && matches!(events.last(), Some(LlmEvent::Finished { .. }))
}

fn failure(events: &[LlmEvent]) -> &LlmError {
    let [.., LlmEvent::Failed(error)] = events else { panic!("{events:?}") };
    assert!(!error.to_string().contains(KEY));
    error
}

#[tokio::test]
async fn an_answer_comes_word_by_word_with_its_cost() {
    let usage = Some(ScriptedUsage { prompt_tokens: 21, completion_tokens: 3 });
    let doubles = doubles(vec![Reply { usage, ..Reply::say("Paris, of course.") }], vec![]).await;
    let request = LlmRequest {
        messages: vec![
            Message::System { content: "Be brief.".into() },
            Message::User { content: "What is the capital of France?".into() },
        ],
        ..LlmRequest::default()
    };
    let options =
        OpenAiOptions { temperature: Some(0.5), max_tokens: Some(40), ..options(&doubles) };
    let events = answer(&model(options), request).await;
    let words = ["Paris,", " of", " course."].map(|word| LlmEvent::Text(word.into()));
    let usage = Some(Usage { prompt_tokens: 21, completion_tokens: 3 });
    let end = LlmEvent::Finished { reason: FinishReason::Stop, usage };
    assert_eq!(events, [&words[..], &[end]].concat());

    let record = doubles.record().chats[0].clone();
    let request = &record.request;
    assert_eq!(request["messages"][0], json!({"role": "system", "content": "Be brief."}));
    assert_eq!((&request["temperature"], &request["max_tokens"]), (&json!(0.5), &json!(40)));
    assert!(record.headers["user-agent"].starts_with("mk-voice/"));
    assert!(record.finished && !record.hung_up);
}

#[tokio::test]
async fn a_tool_is_called_and_its_result_goes_back() {
    #[derive(Deserialize, JsonSchema)]
    struct Place {
        city: String,
    }
    let call = Reply::call("get_weather", r#"{"city": "Rome"}"#);
    let replies = vec![
        Reply { contains: Some("weather".into()), ..call },
        Reply { contains: Some("sunny".into()), ..Reply::say("It is sunny in Rome.") },
    ];
    let doubles = doubles(replies, vec![]).await;
    let model = model(options(&doubles));
    let tools = Tools::new().with("get_weather", "Tells the weather", |place: Place| async move {
        Ok::<_, String>(format!("sunny in {}", place.city))
    });
    let mut messages = vec![Message::User { content: "How is the weather in Rome?".into() }];
    let request = LlmRequest { messages: messages.clone(), tools: tools.specs() };
    let events = answer(&model, request).await;
    let [LlmEvent::ToolCall(call), LlmEvent::Finished { reason: FinishReason::ToolCalls, .. }] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    let content = tools.call(call).await;
    assert_eq!(content, "\"sunny in Rome\"");
    messages.extend([
        Message::Assistant { content: String::new(), tool_calls: vec![call.clone()] },
        Message::Tool { call_id: call.id.clone(), content },
    ]);
    let events = answer(&model, LlmRequest { messages, tools: tools.specs() }).await;
    assert_eq!(text(&events), "It is sunny in Rome.");
    let record = doubles.record();
    let tool = &record.chats[0].request["tools"][0]["function"];
    assert_eq!(tool["name"], "get_weather");
    assert_eq!(tool["parameters"]["required"], json!(["city"]));
    assert_eq!(record.chats[1].request["messages"][2]["tool_call_id"], call.id.as_str());
}

#[tokio::test]
async fn however_the_bytes_come_the_answer_is_the_same() {
    let reply = Reply { delta: DeltaSize::Chars(2), ..Reply::say(TEXT) };
    for sizes in [vec![1], vec![3, 1, 7], vec![64, 2, 500]] {
        let fault = FaultKind::Fragment { sizes: sizes.clone(), pause_ms: 0 };
        let doubles = doubles(vec![reply.clone()], vec![Fault::next(Service::Chat, fault)]).await;
        let events = answer(&model(options(&doubles)), user("Say it.")).await;
        assert!(is_whole(&events) && retries(&events) == 0, "{sizes:?}: {events:?}");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    let status = |status, retry_after| FaultKind::Status { status, retry_after, code: None };
    for kind in [
        status(429, Some(0)),
        status(500, Some(0)),
        status(503, Some(1)),
        FaultKind::Drop { after_bytes: 0 },
        FaultKind::Drop { after_bytes: 300 },
        FaultKind::Error { after_events: 0, code: None },
        FaultKind::Malformed { after_events: 1 },
    ] {
        let doubles = faulty(&kind).await;
        let events = answer(&model(options(&doubles)), user("Say it.")).await;
        assert!(is_whole(&events) && retries(&events) == 1, "{kind:?}: {events:?}");
        assert_eq!(doubles.record().chats_total, 2, "{kind:?}");
    }
}

#[tokio::test]
async fn what_does_not_pass_is_not_tried_again() {
    for (status, code, expected) in [
        (429, Some("insufficient_quota"), "HTTP 429: insufficient_quota: "),
        (401, None, "HTTP 401: invalid_request_error invalid_api_key: "),
        (400, None, "HTTP 400: invalid_request_error: "),
    ] {
        let code = code.map(Into::into);
        let doubles = faulty(&FaultKind::Status { status, retry_after: None, code }).await;
        let events = answer(&model(options(&doubles)), user("Say it.")).await;
        let error = failure(&events);
        assert!(error.permanent && error.reason.starts_with(expected), "{error}");
        let id = &doubles.record().chats[0].request_id;
        assert!(error.reason.ends_with(&format!("(request {id})")), "{error}");
        assert_eq!((events.len(), doubles.record().chats_total), (1, 1));
    }
    let doubles = doubles(vec![Reply::say(TEXT)], vec![]).await;
    let wrong = OpenAiOptions { key: Some(Secret::new("sk-wrong")), ..options(&doubles) };
    assert!(failure(&answer(&model(wrong), user("Say it.")).await).permanent);
}

#[tokio::test]
async fn nothing_is_begun_again_once_it_is_said() {
    for kind in [
        FaultKind::Drop { after_bytes: 1_500 },
        FaultKind::Error { after_events: 3, code: None },
        FaultKind::Malformed { after_events: 3 },
    ] {
        let doubles = faulty(&kind).await;
        let events = answer(&model(options(&doubles)), user("Say it.")).await;
        let said = text(&events);
        let is_part = !said.is_empty() && TEXT.starts_with(&said) && said != TEXT;
        assert!(is_part, "{kind:?}: {events:?}");
        let error = failure(&events);
        assert!(!error.permanent && retries(&events) == 0, "{error}");
        assert_eq!(doubles.record().chats_total, 1);
    }
}

#[tokio::test]
async fn a_service_that_stalls_is_overtaken() {
    for kind in [
        FaultKind::Delay { ms: 60_000 },
        FaultKind::Stall { after_events: 0, for_ms: None },
        FaultKind::Stall { after_events: 1, for_ms: None },
        FaultKind::HalfOpen { after_bytes: 0 },
        FaultKind::HalfOpen { after_bytes: 200 },
    ] {
        let doubles = faulty(&kind).await;
        let first_token_timeout = Duration::from_millis(300);
        let model = model(OpenAiOptions { first_token_timeout, ..options(&doubles) });
        let events = answer(&model, user("Say it.")).await;
        assert!(is_whole(&events) && retries(&events) == 1, "{kind:?}: {events:?}");
        let record = doubles.record();
        assert_eq!(record.chats[0].request, record.chats[1].request);
        assert_ne!(record.chats[0].connection, record.chats[1].connection);
    }
}

#[tokio::test]
async fn a_service_that_stalls_in_the_middle_is_given_up() {
    let doubles = faulty(&FaultKind::Stall { after_events: 3, for_ms: None }).await;
    let idle_timeout = Duration::from_secs(2);
    let model = model(OpenAiOptions { idle_timeout, ..options(&doubles) });
    let events = answer(&model, user("Say it.")).await;
    assert!(failure(&events).reason.starts_with("nothing came for 2s"));
    assert!(!text(&events).is_empty());
    // The next answer does not suffer from it.
    assert!(is_whole(&answer(&model, user("Say it.")).await));
}

#[tokio::test]
async fn dropping_an_answer_hangs_up() {
    let slow = Reply { delta_ms: 60_000, ..Reply::say(TEXT) };
    let doubles = doubles(vec![slow, Reply::say(TEXT)], vec![]).await;
    let model = model(options(&doubles));
    let mut stream = model.answer(user("Say it."));
    assert!(matches!(next(&mut stream).await, Some(LlmEvent::Text(_))));
    drop(stream);
    let hung_up = doubles.until(PATIENCE, |record| record.chats[0].hung_up).await;
    let record = hung_up.expect("the double sees it");
    assert!(record.chats[0].deltas_sent < 3 && !record.chats[0].finished);
    assert!(is_whole(&answer(&model, user("Say it.")).await));
}

#[tokio::test]
async fn a_connection_serves_one_answer_after_the_other() {
    let doubles = doubles(vec![Reply::say(TEXT)], vec![]).await;
    let model = model(options(&doubles));
    model.warm_up();
    for _ in 0..3 {
        assert!(is_whole(&answer(&model, user("Say it.")).await));
    }
    let record = doubles.record();
    assert_eq!(record.chats[1].connection, record.chats[2].connection);

    // The service closes it while it is not used: the next answer has another, and nobody notices.
    doubles.faults().add(Fault::next(Service::Chat, FaultKind::IdleClose { after_ms: 1 }));
    assert!(is_whole(&answer(&model, user("Say it.")).await));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let events = answer(&model, user("Say it.")).await;
    assert!(is_whole(&events) && retries(&events) == 0, "{events:?}");
}
