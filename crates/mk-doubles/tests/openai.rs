//! An SDK of OpenAI's interface understands the doubles.

use std::collections::BTreeMap;
use std::time::Duration;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::types::chat::{
    CreateChatCompletionRequest, CreateChatCompletionStreamResponse, FinishReason, Role,
};
use futures_util::StreamExt;
use mk_doubles::script::{DeltaSize, ScriptedToolCall, Usage};
use mk_doubles::{ChatScript, Doubles, DoublesOptions, Fault, FaultKind, Reply, Service};
use serde_json::{Value, json};

/// A generous limit for what takes milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

async fn doubles(replies: Vec<Reply>) -> Doubles {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Doubles::start(DoublesOptions {
        openai_key: Some("sk-test".into()),
        chat: ChatScript { replies },
        ..DoublesOptions::default()
    })
    .await
    .unwrap()
}

fn sdk(doubles: &Doubles, key: &str) -> Client<OpenAIConfig> {
    let config = OpenAIConfig::new().with_api_base(doubles.openai_url()).with_api_key(key);
    Client::with_config(config)
}

fn request(body: Value) -> CreateChatCompletionRequest {
    serde_json::from_value(body).unwrap()
}

fn user(text: &str, stream: bool) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "stream": stream})
}

async fn stream(
    client: &Client<OpenAIConfig>,
    body: Value,
) -> Vec<CreateChatCompletionStreamResponse> {
    let stream = client.chat().create_stream(request(body)).await.unwrap();
    stream.map(|chunk| chunk.unwrap()).collect().await
}

#[tokio::test]
async fn a_stream_reaches_the_sdk_with_its_usage() {
    let usage = Usage { prompt_tokens: 11, completion_tokens: 7 };
    let text = "Paris, où tout commence.";
    let reply = Reply {
        contains: Some("capital of FRANCE".into()),
        usage: Some(usage),
        delta: DeltaSize::Chars(4),
        ..Reply::say(text)
    };
    let doubles = doubles(vec![Reply::say("Something else."), reply]).await;
    let mut body = user("What is the capital of France?", true);
    body["stream_options"] = json!({"include_usage": true, "include_obfuscation": false});
    let chunks = stream(&sdk(&doubles, "sk-test"), body).await;

    assert_eq!(chunks[0].choices[0].delta.role, Some(Role::Assistant));
    let said = chunks.iter().filter_map(|chunk| chunk.choices.first()?.delta.content.as_deref());
    assert_eq!(said.collect::<String>(), text);
    let [.., end, last] = &chunks[..] else { panic!("{chunks:?}") };
    assert_eq!(end.choices[0].finish_reason, Some(FinishReason::Stop));
    assert!(last.choices.is_empty());
    let used = last.usage.as_ref().unwrap();
    assert_eq!((used.prompt_tokens, used.completion_tokens, used.total_tokens), (11, 7, 18));
    assert!(chunks.iter().all(|chunk| chunk.id == last.id && chunk.obfuscation.is_none()));

    let record = doubles.until(LIMIT, |record| record.chats[0].finished).await.unwrap();
    let chat = &record.chats[0];
    assert_eq!((chat.reply, chat.deltas_sent, chat.hung_up), (Some(1), 6, false));
    assert_eq!(chat.request["messages"][0]["content"], "What is the capital of France?");
    doubles.shutdown().await;
}

#[tokio::test]
async fn tool_calls_come_in_fragments_by_index() {
    let call = |name: &str, arguments: &str| ScriptedToolCall {
        name: name.into(),
        arguments: arguments.into(),
        fragment_chars: 3,
    };
    let calls = vec![call("weather", r#"{"city":"Zürich"}"#), call("time", r#"{"zone":"CET"}"#)];
    let tools = Reply { tool_calls: calls, ..Reply::default() };
    let doubles = doubles(vec![tools, Reply::say("It is cold.")]).await;
    let client = sdk(&doubles, "sk-test");
    let mut body = user("What is the weather?", true);
    let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}});
    body["tools"] = json!([tool]);
    let chunks = stream(&client, body.clone()).await;
    let mut calls: BTreeMap<u32, (String, String, String)> = BTreeMap::new();
    for delta in chunks.iter().flat_map(|chunk| &chunk.choices[0].delta.tool_calls).flatten() {
        let call = calls.entry(delta.index).or_default();
        call.0 += delta.id.as_deref().unwrap_or_default();
        let function = delta.function.as_ref().unwrap();
        call.1 += function.name.as_deref().unwrap_or_default();
        call.2 += function.arguments.as_deref().unwrap_or_default();
    }
    let (id, name, arguments) = &calls[&0];
    assert!(id.starts_with("call_"), "{id}");
    assert_eq!((name.as_str(), arguments.as_str()), ("weather", r#"{"city":"Zürich"}"#));
    assert_eq!((calls[&1].1.as_str(), calls[&1].2.as_str()), ("time", r#"{"zone":"CET"}"#));
    let end = chunks.last().unwrap();
    assert_eq!(end.choices[0].finish_reason, Some(FinishReason::ToolCalls));

    // The results go back, without a stream. One that is missing is refused, as the service does.
    let made = calls.values().map(|(id, name, arguments)| {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    });
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "tool_calls": made.collect::<Vec<_>>()}));
    messages.push(json!({"role": "tool", "tool_call_id": id, "content": "-3 °C"}));
    body["stream"] = false.into();
    let error = client.chat().create(request(body.clone())).await.unwrap_err();
    assert!(error.to_string().contains(&calls[&1].0), "{error}");
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "tool", "tool_call_id": calls[&1].0, "content": "10:00"}));
    let whole = client.chat().create(request(body)).await.unwrap();
    assert_eq!(whole.choices[0].message.content.as_deref(), Some("It is cold."));
    assert_eq!(whole.choices[0].finish_reason, Some(FinishReason::Stop));
    doubles.shutdown().await;
}

#[tokio::test]
async fn errors_have_the_body_that_the_sdk_reads() {
    let doubles = doubles(vec![Reply::say("Hello.")]).await;
    let api_error = |error: OpenAIError| match error {
        OpenAIError::ApiError(error) => (error.status_code.as_u16(), error.api_error),
        other => panic!("{other}"),
    };
    let wrong = sdk(&doubles, "sk-other");
    let (status, error) =
        api_error(wrong.chat().create(request(user("Hi", false))).await.unwrap_err());
    assert_eq!((status, error.code.as_deref()), (401, Some("invalid_api_key")));
    assert!(!error.message.contains("sk-other"), "{}", error.message);

    let right = sdk(&doubles, "sk-test");
    let empty = request(json!({"model": "gpt-4o-mini", "messages": []}));
    let (status, error) = api_error(right.chat().create(empty).await.unwrap_err());
    assert_eq!((status, error.param.as_deref()), (400, Some("messages")));
    assert_eq!(error.r#type.as_deref(), Some("invalid_request_error"));

    let quota = FaultKind::Status {
        status: 429,
        retry_after: None,
        code: Some("insufficient_quota".into()),
    };
    doubles.faults().set(vec![Fault::next(Service::Chat, quota)]);
    let (status, error) =
        api_error(right.chat().create(request(user("Hi", false))).await.unwrap_err());
    assert_eq!((status, error.code.as_deref()), (429, Some("insufficient_quota")));
    let statuses: Vec<_> = doubles.record().chats.iter().map(|chat| chat.status).collect();
    assert_eq!(statuses, [401, 400, 429]);
    doubles.shutdown().await;
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_reaches_the_sdk() {
    let doubles = doubles(vec![Reply::say("One two three four.")]).await;
    let fault = FaultKind::Error { after_events: 2, code: None };
    doubles.faults().set(vec![Fault::next(Service::Chat, fault)]);
    let client = sdk(&doubles, "sk-test");
    let stream = client.chat().create_stream(request(user("Hi", true))).await.unwrap();
    let chunks: Vec<_> = stream.collect().await;
    assert!(chunks[..2].iter().all(Result::is_ok), "{chunks:?}");
    assert!(chunks[2].is_err(), "{chunks:?}");
    doubles.shutdown().await;
}
