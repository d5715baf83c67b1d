//! The client against a server that does as it is told.

use std::sync::Mutex;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::llm::{FinishReason, Message, Usage};

/// What the server does with a request.
#[derive(Debug, Clone)]
enum Act {
    /// Sends bytes.
    Send(String),
    /// Does nothing for a while.
    Pause(Duration),
    /// Does nothing until the client goes.
    Hold,
}
use Act::{Hold, Pause, Send};

struct Server {
    url: String,
    /// Heads and bodies, as they came.
    requests: Arc<Mutex<Vec<String>>>,
    /// Clients that went while they were held.
    gone: watch::Receiver<usize>,
    _task: AbortOnDropHandle<()>,
}

/// Answers the first request as the first script says, and so on; the last stands for all that follow. Each connection
/// serves one request, and is closed when its script is at its end.
async fn serve(scripts: Vec<Vec<Act>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (gone, watched) = watch::channel(0);
    let seen = Arc::clone(&requests);
    let task = tokio::spawn(async move {
        let gone = Arc::new(gone);
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let (seen, gone, scripts) = (Arc::clone(&seen), Arc::clone(&gone), scripts.clone());
            connections.spawn(async move {
                let request = read_request(&mut stream).await;
                let number = {
                    let mut seen = seen.lock().expect("no panic");
                    seen.push(request);
                    seen.len() - 1
                };
                for act in &scripts[number.min(scripts.len() - 1)] {
                    match act {
                        Send(bytes) => {
                            let _ = stream.write_all(bytes.as_bytes()).await;
                        }
                        Pause(time) => sleep(*time).await,
                        Hold => {
                            let _ = stream.read(&mut [0; 64]).await;
                            gone.send_modify(|gone| *gone += 1);
                        }
                    }
                }
            });
        }
    });
    Server { url, requests, gone: watched, _task: AbortOnDropHandle::new(task) }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            });
            if body.len() >= length.unwrap_or(0usize) {
                return text;
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_7\r\n\r\n";

fn head() -> Act {
    Send(STREAM.into())
}

fn say(text: &str) -> Act {
    Send(format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"))
}

fn end() -> Act {
    Send(
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n"
            .into(),
    )
}

fn answer(text: &str) -> Vec<Act> {
    vec![head(), say(text), end()]
}

fn refuse(status: &str, headers: &str, body: &str) -> Vec<Act> {
    vec![Send(format!("HTTP/1.1 {status}\r\nx-request-id: req_7\r\n{headers}\r\n{body}"))]
}

/// Patient: a loaded machine is no reason for anything.
fn options(server: &Server) -> OpenAiOptions {
    OpenAiOptions {
        base_url: server.url.clone(),
        key: Some(Secret::new("sk-very-secret")),
        model: "m".into(),
        first_token_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(30),
        ..OpenAiOptions::default()
    }
}

fn begin(options: OpenAiOptions) -> LlmStream {
    let model = OpenAi::new(options).expect("a client");
    let messages = vec![Message::User { content: "Hello?".into() }];
    model.answer(LlmRequest { messages, ..LlmRequest::default() })
}

async fn rest(mut stream: LlmStream) -> Vec<LlmEvent> {
    let mut events = Vec::new();
    let read = async {
        while let Some(event) = stream.events.recv().await {
            events.push(event);
        }
    };
    timeout(Duration::from_secs(60), read).await.expect("an end");
    events
}

async fn all(options: OpenAiOptions) -> Vec<LlmEvent> {
    rest(begin(options)).await
}

fn text(text: &str) -> LlmEvent {
    LlmEvent::Text(text.into())
}

fn finished() -> LlmEvent {
    LlmEvent::Finished { reason: FinishReason::Stop, usage: None }
}

/// The only failure, at the end.
fn failure(events: &[LlmEvent]) -> LlmError {
    let [.., LlmEvent::Failed(error)] = events else { panic!("{events:?}") };
    error.clone()
}

fn count(server: &Server) -> usize {
    server.requests.lock().expect("no panic").len()
}

#[tokio::test]
async fn an_answer() {
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
    let server = serve(vec![vec![
        head(),
        Send(": ping\n\n".into()),
        say("Good "),
        say("day."),
        Send("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n".into()),
        Send(usage.into()),
        Send("data: [DONE]\n\n".into()),
        Hold,
    ]])
    .await;
    let options = OpenAiOptions { organization: Some("org_1".into()), ..options(&server) };
    let events = all(options).await;
    let usage = Some(Usage { prompt_tokens: 3, completion_tokens: 2 });
    let finished = LlmEvent::Finished { reason: FinishReason::Stop, usage };
    assert_eq!(events, [text("Good "), text("day."), finished]);
    let request = server.requests.lock().expect("no panic")[0].clone();
    let (head, body) = request.split_once("\r\n\r\n").expect("a request");
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    for line in [
        "authorization: Bearer sk-very-secret",
        "content-type: application/json",
        "openai-organization: org_1",
    ] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["messages"][0]["content"], "Hello?");
    assert_eq!(body["stream"], true);
}

#[tokio::test]
async fn a_server_without_a_key_or_a_stream() {
    let body = r#"{"choices":[{"message":{"content":"Yes."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#;
    let whole = refuse("200 OK", "content-type: application/json; charset=utf-8\r\n", body);
    let server = serve(vec![whole]).await;
    let base_url = format!("{}/", server.url);
    let events = all(OpenAiOptions { base_url, key: None, ..options(&server) }).await;
    let usage = Some(Usage { prompt_tokens: 1, completion_tokens: 0 });
    let finished = LlmEvent::Finished { reason: FinishReason::Stop, usage };
    assert_eq!(events, [text("Yes."), finished]);
    let request = server.requests.lock().expect("no panic")[0].clone();
    assert!(request.starts_with("POST /v1/chat/completions "));
    assert!(!request.contains("uthorization"));
}

#[tokio::test]
async fn an_end_without_its_signs_is_an_end() {
    // Neither [DONE] nor an empty line, and the connection closed or left open or broken.
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let data = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"So\"}}}}]}}\n\n{end}\n\n");
    let broken = vec![Send(format!("{chunked}{:x}\r\n{data}\r\n", data.len()))];
    let open = vec![head(), say("So"), Send(format!("{end}\n\n")), Hold];
    let closed = vec![head(), say("So"), Send(end.into())];
    let only_done = vec![head(), say("So"), Send("data: [DONE]\n\n".into())];
    for script in [broken, open, closed, only_done] {
        let server = serve(vec![script.clone()]).await;
        assert_eq!(all(options(&server)).await, [text("So"), finished()], "{script:?}");
        assert_eq!(count(&server), 1);
    }
}

#[tokio::test]
async fn what_breaks_off_is_said_and_not_begun_again() {
    let chunked = "HTTP/1.1 200 OK\r\nx-request-id: req_7\r\ntransfer-encoding: chunked\r\n\r\n";
    let data = "data: {\"choices\":[{\"delta\":{\"content\":\"So\"}}]}\n\n";
    let broken = vec![Send(format!("{chunked}{:x}\r\n{data}\r\n", data.len()))];
    let closed = vec![head(), say("So")];
    let error = r#"data: {"error":{"message":"sk-very-secret is busy","type":"server_error"}}"#;
    let failed = vec![head(), say("So"), Send(format!("{error}\n\n")), Hold];
    let nonsense = vec![head(), say("So"), Send("data: {\"choices\": oops\n\n".into()), Hold];
    let expected = ["", "the answer broke off", "server_error: <key> is busy", "not JSON"];
    for (script, expected) in [broken, closed, failed, nonsense].into_iter().zip(expected) {
        let server = serve(vec![script]).await;
        let events = all(options(&server)).await;
        assert_eq!((events.len(), &events[0]), (2, &text("So")), "{events:?}");
        let error = failure(&events);
        assert!(error.reason.starts_with(expected), "{error}");
        assert!(error.reason.ends_with("(request req_7)"), "{error}");
        assert!(!error.permanent);
        assert_eq!(count(&server), 1);
    }
}

#[tokio::test]
async fn what_fails_before_the_first_token_is_tried_again() {
    let wait = "retry-after-ms: 5\r\n";
    let busy = refuse(
        "429 Too Many Requests",
        wait,
        r#"{"error":{"message":"Slow down","code":"rate_limit"}}"#,
    );
    let down = refuse("503 Service Unavailable", wait, "<html>\n<h1>Down</h1>");
    let server = serve(vec![busy, down, answer("Yes.")]).await;
    let events = all(options(&server)).await;
    let [LlmEvent::Retried { reason: first }, LlmEvent::Retried { reason: second }, rest @ ..] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(first, "HTTP 429: rate_limit: Slow down (request req_7)");
    assert_eq!(second, "HTTP 503: <html> <h1>Down</h1> (request req_7)");
    assert_eq!(rest, [text("Yes."), finished()]);

    // A stream that is closed, or reports an error, before there is anything of an answer.
    let empty = vec![head()];
    let error = vec![head(), Send("data: {\"error\":{\"type\":\"overloaded_error\"}}\n\n".into())];
    let server = serve(vec![empty, error, answer("Yes.")]).await;
    let events = all(options(&server)).await;
    assert!(matches!(events[0], LlmEvent::Retried { .. }));
    assert_eq!(events[2..], [text("Yes."), finished()]);

    let server = serve(vec![refuse("500 Oops", wait, "")]).await;
    let events = all(options(&server)).await;
    assert_eq!(count(&server), 3);
    let error = failure(&events);
    assert_eq!(error.to_string(), "OpenAI (m): HTTP 500 (request req_7)");
    assert!(!error.permanent);
}

#[tokio::test]
async fn what_will_fail_again_is_not_tried_again() {
    let key = r#"{"error":{"message":"Incorrect API key provided: sk-very-secret","type":"invalid_request_error","code":"invalid_api_key"}}"#;
    let quota =
        r#"{"error":{"message":"Pay","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    for (status, headers, body, permanent, expected) in [
        (
            "401 Unauthorized",
            "",
            key,
            true,
            "HTTP 401: invalid_request_error invalid_api_key: Incorrect API key provided: <key>",
        ),
        ("429 Too Many Requests", "", quota, true, "HTTP 429: insufficient_quota: Pay"),
        ("404 Not Found", "", "", true, "HTTP 404"),
        ("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", "", true, "HTTP 307"),
        ("500 Oops", "x-should-retry: false\r\n", "", false, "HTTP 500"),
        ("429 Too Many Requests", "retry-after: 3600\r\n", "", false, "HTTP 429"),
    ] {
        let server = serve(vec![refuse(status, headers, body)]).await;
        let events = all(options(&server)).await;
        let error = failure(&events);
        assert_eq!(error.reason, format!("{expected} (request req_7)"));
        assert_eq!(error.permanent, permanent, "{error}");
        assert_eq!((events.len(), count(&server)), (1, 1));
    }
}

#[tokio::test]
async fn a_service_that_is_not_there() {
    let options = OpenAiOptions {
        base_url: "http://127.0.0.1:1/v1".into(),
        retries: 1,
        ..OpenAiOptions::default()
    };
    let events = all(options).await;
    assert!(matches!(&events[..], [LlmEvent::Retried { .. }, LlmEvent::Failed(_)]), "{events:?}");
    let error = failure(&events);
    assert!(!error.permanent && !error.reason.contains("127.0.0.1:1/v1"), "{error}");
}

#[tokio::test]
async fn a_service_that_falls_silent() {
    let silent = |script: Vec<Act>| async move {
        let server = serve(vec![script]).await;
        let idle_timeout = Duration::from_millis(200);
        let options = OpenAiOptions { idle_timeout, retries: 0, ..options(&server) };
        let error = failure(&all(options).await);
        server.gone.clone().wait_for(|gone| *gone == 1).await.expect("a server");
        error.reason
    };
    assert_eq!(silent(vec![Hold]).await, "nothing came for 200ms");
    let expected = "nothing came for 200ms (request req_7)";
    assert_eq!(silent(vec![head(), Hold]).await, expected);
    assert_eq!(silent(vec![head(), say("So"), Hold]).await, expected);
}

#[tokio::test]
async fn signs_of_life_are_no_answer() {
    let mut script = vec![head()];
    for _ in 0..500 {
        script.extend([Send(": ping\n\n".into()), Pause(Duration::from_millis(20))]);
    }
    let mut late = script.clone();
    late.insert(1, say("So"));
    for script in [script, late] {
        let server = serve(vec![script]).await;
        let stall_timeout = Duration::from_millis(300);
        let events = all(OpenAiOptions { stall_timeout, ..options(&server) }).await;
        let error = failure(&events);
        assert!(error.reason.starts_with("nothing of an answer came for 300ms"), "{error}");
    }
}

#[tokio::test]
async fn a_second_request_overtakes_the_first() {
    let server = serve(vec![vec![head(), Hold], answer("Second.")]).await;
    let first_token_timeout = Duration::from_millis(100);
    let events = all(OpenAiOptions { first_token_timeout, ..options(&server) }).await;
    let reason = "nothing of an answer after 100ms".into();
    assert_eq!(events, [LlmEvent::Retried { reason }, text("Second."), finished()]);
    // The first was dropped, and both asked the same.
    server.gone.clone().wait_for(|gone| *gone == 1).await.expect("a server");
    let requests = server.requests.lock().expect("no panic").clone();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
}

#[tokio::test]
async fn the_first_request_may_still_win() {
    let slow = vec![head(), Pause(Duration::from_millis(600)), say("First."), end()];
    // Whatever becomes of the second.
    let busy = refuse("429 Too Many Requests", "", "");
    for second in [vec![head(), Hold], busy] {
        let server = serve(vec![slow.clone(), second]).await;
        let first_token_timeout = Duration::from_millis(200);
        let events = all(OpenAiOptions { first_token_timeout, ..options(&server) }).await;
        assert!(matches!(events[0], LlmEvent::Retried { .. }));
        assert_eq!(events[1..], [text("First."), finished()]);
        assert_eq!(count(&server), 2);
    }
}

#[tokio::test]
async fn two_requests_that_fail_are_one_failure() {
    let fails =
        vec![Pause(Duration::from_millis(400)), Send("HTTP/1.1 400 No\r\n\r\nFirst".into())];
    let server = serve(vec![fails, refuse("500 Oops", "", "Second")]).await;
    let first_token_timeout = Duration::from_millis(100);
    let events = all(OpenAiOptions { first_token_timeout, ..options(&server) }).await;
    assert_eq!(failure(&events).reason, "HTTP 400: First");
    assert_eq!((events.len(), count(&server)), (2, 2));
}

#[tokio::test]
async fn dropping_an_answer_closes_it_at_once() {
    for script in [vec![Hold], vec![head(), say("So"), Hold]] {
        let server = serve(vec![script.clone()]).await;
        let mut gone = server.gone.clone();
        let mut stream = begin(options(&server));
        if script.len() > 1 {
            assert_eq!(stream.events.recv().await, Some(text("So")));
        } else {
            while count(&server) == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop(stream);
        let dropped = Instant::now();
        timeout(Duration::from_secs(20), gone.wait_for(|gone| *gone == 1))
            .await
            .expect("in time")
            .expect("a server");
        assert!(dropped.elapsed() < Duration::from_secs(5));
    }
    // Either end of it.
    let server = serve(vec![vec![head(), say("So"), Hold]]).await;
    let LlmStream { events, task } = begin(options(&server));
    drop(events);
    timeout(Duration::from_secs(20), task).await.expect("an end").expect("no panic");
}

#[tokio::test]
async fn who_does_not_read_is_waited_for() {
    let mut script = vec![head()];
    script.extend((0..2_000).map(|i| say(&format!("{i} "))));
    script.push(end());
    let server = serve(vec![script]).await;
    let idle_timeout = Duration::from_millis(500);
    let stream = begin(OpenAiOptions { idle_timeout, ..options(&server) });
    sleep(Duration::from_millis(700)).await;
    assert_eq!(stream.events.len(), WAITING_EVENTS);
    let events = rest(stream).await;
    assert_eq!((events.len(), events.last()), (2_001, Some(&finished())));
}

#[tokio::test]
async fn a_connection_in_advance() {
    let server =
        serve(vec![vec![Send("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".into())]]).await;
    OpenAi::new(options(&server)).expect("a client").warm_up();
    timeout(Duration::from_secs(20), async {
        while count(&server) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("a request");
    assert!(server.requests.lock().expect("no panic")[0].starts_with("HEAD /v1/models HTTP/1.1"));
}

#[test]
fn options_that_cannot_be() {
    for (base_url, key, expected) in [
        ("", "", "\"\" is not a URL: "),
        ("api.openai.com/v1", "", "\"api.openai.com/v1\" is not a URL: "),
        ("file:///v1", "", "\"file:///v1\" is not a URL of HTTP"),
        ("http://localhost/v1", "sk\n1", "the key has characters that no key has"),
    ] {
        let options = OpenAiOptions {
            base_url: base_url.into(),
            key: Some(Secret::new(key)),
            ..OpenAiOptions::default()
        };
        let error = OpenAi::new(options).expect_err("an error");
        assert!(error.permanent && error.reason.starts_with(expected), "{error}");
    }
    let options =
        OpenAiOptions { key: Some(Secret::new("sk-very-secret")), ..OpenAiOptions::default() };
    let model = OpenAi::new(options).expect("a client");
    assert!(!format!("{model:?}").contains("sk-very-secret"));
    assert_eq!(model.inner.completions.as_str(), "https://api.openai.com/v1/chat/completions");
    // A service whose version is in the query.
    let base_url = "https://example.com/a/?api-version=3".into();
    let model =
        OpenAi::new(OpenAiOptions { base_url, ..OpenAiOptions::default() }).expect("a client");
    assert_eq!(
        model.inner.completions.as_str(),
        "https://example.com/a/chat/completions?api-version=3"
    );
}
