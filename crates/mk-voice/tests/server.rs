//! The server as clients meet it, good ones and bad ones.

mod echo;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use mk_voice::metrics::Metrics;
use mk_voice::protocol::{AudioFrame, ClientMessage, ServerMessage};
use mk_voice::server::{Server, ServerError, ServerOptions};
use mk_voice::session::Session;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

/// How long anything may take on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(30);

type Client = WebSocketStream<TcpStream>;

/// A server that runs until it is dropped or stopped.
struct Running {
    address: std::net::SocketAddr,
    metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServerError>>,
}

impl Running {
    async fn new(
        options: ServerOptions,
        start: impl Fn() -> Session + Send + Sync + 'static,
    ) -> Self {
        let metrics = Arc::new(Metrics::new());
        let server = Server::bind(options, metrics.clone(), start).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve(async { _ = stopped.await }));
        Self { address, metrics, stop: Some(stop), served }
    }

    async fn echo() -> Self {
        Self::new(ServerOptions::default(), echo::start).await
    }

    /// The whole answer to a request without a body.
    async fn get(&self, path: &str, headers: &str) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(SOON, connection.read_to_end(&mut answer)).await.unwrap().unwrap();
        String::from_utf8(answer).unwrap()
    }

    async fn file(&self, path: &str) -> String {
        self.get(path, &format!("Host: {}\r\n", self.address)).await
    }

    async fn upgrade(&self, origin: Option<&str>) -> Result<Client, Error> {
        let mut request = format!("ws://{}/ws", self.address).into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", origin.parse().unwrap());
        }
        let connection = TcpStream::connect(self.address).await.unwrap();
        let upgrade = tokio_tungstenite::client_async(request, connection);
        Ok(timeout(SOON, upgrade).await.unwrap()?.0)
    }

    async fn connect(&self) -> Client {
        self.upgrade(None).await.unwrap()
    }

    /// A client that has said hello.
    async fn greeted(&self) -> Client {
        let mut client = self.connect().await;
        say(&mut client, &ClientMessage::Hello { sample_rate: 16_000 }).await;
        client
    }

    async fn stop(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(SOON, self.served).await.unwrap().unwrap().unwrap();
    }
}

async fn say(client: &mut Client, message: &ClientMessage) {
    let text = serde_json::to_string(message).unwrap();
    client.send(Message::text(text)).await.unwrap();
}

/// What comes until the server closes, and why it does.
async fn until_closed(client: &mut Client) -> (Vec<Message>, u16, String) {
    let mut messages = Vec::new();
    loop {
        match timeout(SOON, client.next()).await.expect("it is not closed") {
            Some(Ok(Message::Close(Some(frame)))) => {
                // Answers, and waits for the end.
                while let Some(Ok(_)) = timeout(SOON, client.next()).await.unwrap() {}
                return (messages, frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(message)) => messages.push(message),
            other => panic!("closed without a reason: {other:?}"),
        }
    }
}

/// That the server closes, with this code and a reason that contains this.
async fn expect_closed(client: &mut Client, code: u16, reason: &str) {
    let (_, closed, why) = until_closed(client).await;
    assert_eq!(closed, code, "{why}");
    assert!(why.contains(reason), "{why:?} does not say {reason:?}");
}

async fn next_told(client: &mut Client) -> ServerMessage {
    loop {
        match timeout(SOON, client.next()).await.expect("nothing comes").unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Binary(bytes) => {
                let (header, samples) = bytes.split_at(AudioFrame::HEADER);
                return ServerMessage::Audio(AudioFrame {
                    epoch: u32::from_le_bytes(header[..4].try_into().unwrap()),
                    first_sample: u64::from_le_bytes(header[4..].try_into().unwrap()),
                    samples: samples
                        .chunks(2)
                        .map(|sample| i16::from_le_bytes(sample.try_into().unwrap()))
                        .collect(),
                });
            }
            _ => {}
        }
    }
}

/// The session's end of a conversation that a test holds in its hands.
type Held = (mpsc::Sender<ServerMessage>, mpsc::Receiver<ClientMessage>);

/// Sessions whose other ends come out of a channel.
fn held_sessions() -> (impl Fn() -> Session + Send + Sync + 'static, mpsc::Receiver<Held>) {
    let (held, sessions) = mpsc::channel(8);
    let start = move || {
        let (input, messages) = mpsc::channel(8);
        let (answers, output) = mpsc::channel(8);
        held.try_send((answers, messages)).unwrap();
        Session { input, output }
    };
    (start, sessions)
}

async fn next<T>(receiver: &mut mpsc::Receiver<T>) -> Option<T> {
    timeout(SOON, receiver.recv()).await.expect("nothing comes")
}

/// That the session learns that its client is gone.
async fn expect_end(messages: &mut mpsc::Receiver<ClientMessage>) {
    while next(messages).await.is_some() {}
}

#[tokio::test]
async fn the_page_is_whole_and_keeps_to_itself() {
    let server = Running::echo().await;
    let page = server.file("/").await;
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    let policy = page.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(page.contains("cache-control: no-store"));
    assert!(page.contains("x-content-type-options: nosniff"));

    // Every file that a file names is there, and none is elsewhere.
    let mut named = vec!["/".to_owned()];
    let mut at = 0;
    while let Some(path) = named.get(at).cloned() {
        let file = server.file(&path).await;
        assert!(file.starts_with("HTTP/1.1 200"), "{path} is named, and is not there");
        let (_, content) = file.split_once("\r\n\r\n").unwrap();
        let foreign = content.replace("http://www.w3.org/", "");
        assert!(!foreign.contains("http://") && !foreign.contains("https://"), "{path}");
        for quoted in content.split('"').skip(1).step_by(2) {
            let is_file = [".js", ".css", ".svg"].iter().any(|end| quoted.ends_with(end));
            if quoted.starts_with('/') && is_file && !named.iter().any(|known| known == quoted) {
                named.push(quoted.to_owned());
            }
        }
        at += 1;
    }
    assert_eq!(named.len(), 12, "{named:?}");
    assert!(server.file("/nothing").await.starts_with("HTTP/1.1 404"));
    assert!(server.file("/healthz").await.ends_with("ok\n"));
}

#[tokio::test]
async fn a_foreign_name_that_points_here_gets_nothing() {
    let server = Running::echo().await;
    for host in ["evil.example.com", "evil.example.com:80", "127.0.0.1.evil.example.com"] {
        for path in ["/", "/metrics", "/stats", "/healthz", "/ws"] {
            let answer = server.get(path, &format!("Host: {host}\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{host}{path}: {answer}");
        }
    }
    assert!(server.get("/healthz", "Host: localhost:1234\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(server.metrics.render().contains("refused_total{reason=\"host\"} 15"));
}

#[tokio::test]
async fn only_pages_of_the_server_and_of_allowed_origins_may_talk() {
    let allowed_origins = vec!["https://voice.example.com".to_owned()];
    let options = ServerOptions { allowed_origins, ..ServerOptions::default() };
    let server = Running::new(options, echo::start).await;
    let own = format!("http://{}", server.address);
    for origin in [None, Some(own.as_str()), Some("https://voice.example.com")] {
        server.upgrade(origin).await.unwrap();
    }
    for origin in
        ["http://evil.example.com", "http://localhost", "null", "https://voice.example.com.evil"]
    {
        let Err(Error::Http(response)) = server.upgrade(Some(origin)).await else {
            panic!("{origin} was let in");
        };
        assert_eq!(response.status(), 403, "{origin}");
    }
    assert!(server.metrics.render().contains("refused_total{reason=\"origin\"} 4"));
}

#[tokio::test]
async fn to_be_reachable_from_other_machines_must_be_asked_for() {
    let bind = "0.0.0.0:0".parse().unwrap();
    let options = ServerOptions { bind, ..ServerOptions::default() };
    let metrics = Arc::new(Metrics::new());
    let refused = Server::bind(options.clone(), metrics.clone(), echo::start).await.err().unwrap();
    assert!(matches!(refused, ServerError::NotLoopback { .. }), "{refused}");
    let options = ServerOptions { public: true, ..options };
    Server::bind(options, metrics.clone(), echo::start).await.unwrap();
    let allowed_origins = vec!["voice.example.com".to_owned()];
    let options = ServerOptions { allowed_origins, ..ServerOptions::default() };
    let refused = Server::bind(options, metrics, echo::start).await.err().unwrap();
    assert!(refused.to_string().starts_with("\"voice.example.com\" is not an origin"), "{refused}");
}

#[tokio::test]
async fn a_conversation_goes_both_ways_and_is_counted() {
    let server = Running::echo().await;
    let mut client = server.greeted().await;
    let ServerMessage::Ready { sample_rate, .. } = next_told(&mut client).await else {
        panic!("ready comes first");
    };
    assert_eq!(sample_rate, echo::SAMPLE_RATE);
    say(&mut client, &ClientMessage::Text { text: "Hello".to_owned() }).await;
    let mut heard = 0;
    while heard < 12_000 {
        if let ServerMessage::Audio(frame) = next_told(&mut client).await {
            assert_eq!((frame.epoch, frame.first_sample), (1, heard));
            heard += frame.samples.len() as u64;
        }
    }
    let played = ClientMessage::Played { epoch: 1, samples: heard, underruns: 2 };
    say(&mut client, &played).await;
    say(&mut client, &ClientMessage::Interrupt).await;
    let report = loop {
        if let ServerMessage::Turn(report) = next_told(&mut client).await {
            break report;
        }
    };
    assert!(report.interrupted);
    client.send(Message::binary(vec![0; 32_000])).await.unwrap();
    client.close(None).await.unwrap();
    while let Some(Ok(_)) = timeout(SOON, client.next()).await.unwrap() {}

    let metrics = server.file("/metrics").await;
    for line in [
        "mk_voice_sessions_total 1",
        "mk_voice_turns_total{outcome=\"interrupted\"} 1",
        "mk_voice_underruns_total 2",
        "mk_voice_audio_in_seconds_total 1",
    ] {
        assert!(metrics.contains(line), "no {line:?} in\n{metrics}");
    }
    let stats = server.file("/stats").await;
    let (_, body) = stats.split_once("\r\n\r\n").unwrap();
    let stats: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(stats["interrupted"], 1);
    assert_eq!(stats["stages"][0]["stage"], "transcript");
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_begin_with_a_hello_is_sent_away() {
    let hello_timeout = Duration::from_millis(200);
    let options = ServerOptions { hello_timeout, ..ServerOptions::default() };
    let server = Running::new(options, || panic!("nobody said hello")).await;
    let mut silent = server.connect().await;
    expect_closed(&mut silent, 1008, "no hello").await;

    let server = Running::echo().await;
    let mut typing = server.connect().await;
    say(&mut typing, &ClientMessage::Interrupt).await;
    expect_closed(&mut typing, 1008, "must be a hello").await;
    let mut talking = server.connect().await;
    talking.send(Message::binary(vec![0; 640])).await.unwrap();
    expect_closed(&mut talking, 1008, "must be a hello").await;
    for sample_rate in [0, 7_999, 96_001, u32::MAX] {
        let mut client = server.connect().await;
        say(&mut client, &ClientMessage::Hello { sample_rate }).await;
        expect_closed(&mut client, 1008, "sample rate").await;
    }
    let mut twice = server.greeted().await;
    say(&mut twice, &ClientMessage::Hello { sample_rate: 16_000 }).await;
    expect_closed(&mut twice, 1008, "second hello").await;
}

#[tokio::test]
async fn what_is_not_a_message_is_answered_with_a_reason() {
    let server = Running::echo().await;
    for text in [
        "",
        "hello",
        "{",
        "[]",
        "{}",
        r#"{"type":"shout"}"#,
        r#"{"type":"text"}"#,
        r#"{"type":"audio"}"#,
    ] {
        let mut client = server.greeted().await;
        client.send(Message::text(text)).await.unwrap();
        expect_closed(&mut client, 1003, "not a message").await;
    }
    let mut client = server.greeted().await;
    client.send(Message::binary(vec![0; 641])).await.unwrap();
    expect_closed(&mut client, 1003, "half a sample").await;
}

#[tokio::test]
async fn large_messages_are_not_taken() {
    let server = Running::echo().await;
    let limit = ServerOptions::default().max_message_bytes;
    let mut fitting = server.greeted().await;
    fitting.send(Message::binary(vec![0; limit])).await.unwrap();
    say(&mut fitting, &ClientMessage::Text { text: "Hello".to_owned() }).await;
    while !matches!(next_told(&mut fitting).await, ServerMessage::Audio(_)) {}

    let mut large = server.greeted().await;
    large.send(Message::binary(vec![0; limit + 2])).await.unwrap();
    expect_closed(&mut large, 1009, "65538 bytes").await;
    let mut text = server.connect().await;
    text.send(Message::text(" ".repeat(limit + 1))).await.unwrap();
    expect_closed(&mut text, 1009, "65537 bytes").await;
    // What is much too large is not even read.
    let mut huge = server.greeted().await;
    let _ = huge.send(Message::binary(vec![0; 1 << 20])).await;
    expect_closed(&mut huge, 1002, "").await;
}

#[tokio::test]
async fn audio_that_comes_faster_than_anybody_speaks_is_refused() {
    let (start, mut sessions) = held_sessions();
    let server = Running::new(ServerOptions::default(), start).await;
    let mut client = server.greeted().await;
    let (_answers, mut messages) = next(&mut sessions).await.unwrap();
    let session = tokio::spawn(async move {
        let mut seconds = 0;
        while let Some(message) = next(&mut messages).await {
            seconds += usize::from(matches!(message, ClientMessage::Audio(_)));
        }
        seconds
    });
    for _ in 0..60 {
        // A second each.
        if client.send(Message::binary(vec![0; 32_000])).await.is_err() {
            break;
        }
    }
    expect_closed(&mut client, 1008, "audio faster").await;
    // What was held up by a network may come; not much more.
    let seconds = session.await.unwrap();
    assert!((10..=40).contains(&seconds), "{seconds} s were taken");
}

#[tokio::test]
async fn a_flood_of_messages_is_refused() {
    let server = Running::echo().await;
    let mut client = server.greeted().await;
    let mute = serde_json::to_string(&ClientMessage::Mute { muted: true }).unwrap();
    for _ in 0..50_000 {
        if client.send(Message::text(mute.clone())).await.is_err() {
            break;
        }
    }
    expect_closed(&mut client, 1008, "too many messages").await;
}

#[tokio::test]
async fn a_full_server_says_so_and_takes_the_next_one_when_a_seat_is_free() {
    let (start, mut sessions) = held_sessions();
    let options = ServerOptions { max_sessions: 1, ..ServerOptions::default() };
    let server = Running::new(options, start).await;
    let mut first = server.greeted().await;
    let (_answers, mut messages) = next(&mut sessions).await.unwrap();
    let mut second = server.connect().await;
    expect_closed(&mut second, 1013, "all 1 conversations of this server are taken").await;
    assert!(server.metrics.render().contains("refused_total{reason=\"full\"} 1"));
    first.close(None).await.unwrap();
    expect_end(&mut messages).await;
    while let Some(Ok(_)) = timeout(SOON, first.next()).await.unwrap() {}
    let _third = server.greeted().await;
    next(&mut sessions).await.unwrap();
}

#[tokio::test]
async fn a_conversation_may_last_only_so_long() {
    let session_limit = Some(Duration::from_millis(300));
    let options = ServerOptions { session_limit, ..ServerOptions::default() };
    let server = Running::new(options, echo::start).await;
    let mut client = server.greeted().await;
    expect_closed(&mut client, 1008, "may last 0.3 s").await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_sent_away() {
    let patience = Duration::from_millis(500);
    let options = ServerOptions { patience, ..ServerOptions::default() };
    let (start, mut sessions) = held_sessions();
    let server = Running::new(options, start).await;
    let mut client = server.greeted().await;
    let (answers, mut messages) = next(&mut sessions).await.unwrap();
    let frame = AudioFrame { epoch: 1, first_sample: 0, samples: vec![0; 100_000] };
    // More than the buffers of the system hold; ends when the server gives up.
    let mut sent = 0;
    while sent < 10_000 && answers.send(ServerMessage::Audio(frame.clone())).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 10_000, "the server took it all");
    expect_end(&mut messages).await;
    // Reading on, it learns why.
    expect_closed(&mut client, 1008, "too slow").await;
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let ping_interval = Duration::from_millis(100);
    let options = ServerOptions { ping_interval, ..ServerOptions::default() };
    let (start, mut sessions) = held_sessions();
    let server = Running::new(options, start).await;
    // It does not read, so it answers no ping.
    let _client = server.greeted().await;
    let (_answers, mut messages) = next(&mut sessions).await.unwrap();
    expect_end(&mut messages).await;

    let mut reading = server.greeted().await;
    let (answers, _messages) = next(&mut sessions).await.unwrap();
    let mut pings = 0;
    while pings < 10 {
        let message = timeout(SOON, reading.next()).await.unwrap().unwrap().unwrap();
        pings += usize::from(message.is_ping());
    }
    assert!(!answers.is_closed());
}

#[tokio::test]
async fn a_conversation_that_ends_says_why() {
    let (start, mut sessions) = held_sessions();
    let server = Running::new(ServerOptions::default(), start).await;
    let mut client = server.greeted().await;
    drop(next(&mut sessions).await.unwrap());
    expect_closed(&mut client, 1011, "broke off").await;

    let mut client = server.greeted().await;
    let (answers, messages) = next(&mut sessions).await.unwrap();
    let problem = ServerMessage::Problem {
        stage: "session".to_owned(),
        message: "nobody said anything for an hour".to_owned(),
        permanent: true,
    };
    answers.send(problem.clone()).await.unwrap();
    drop((answers, messages));
    assert_eq!(next_told(&mut client).await, problem);
    expect_closed(&mut client, 1000, "for an hour").await;
    assert!(server.metrics.render().contains("problems_total{stage=\"session\"} 1"));
}

#[tokio::test]
async fn a_session_that_does_not_listen_holds_nobody_up() {
    let patience = Duration::from_millis(200);
    let options = ServerOptions { patience, ..ServerOptions::default() };
    let (start, mut sessions) = held_sessions();
    let server = Running::new(options, start).await;
    let mut client = server.greeted().await;
    let _held = next(&mut sessions).await.unwrap();
    for _ in 0..20 {
        say(&mut client, &ClientMessage::Interrupt).await;
    }
    expect_closed(&mut client, 1011, "does not listen").await;
}

#[tokio::test]
async fn a_server_that_is_stopped_says_goodbye() {
    let server = Running::echo().await;
    let mut client = server.greeted().await;
    next_told(&mut client).await;
    let goodbye = tokio::spawn(async move {
        expect_closed(&mut client, 1001, "being stopped").await;
    });
    server.stop().await;
    goodbye.await.unwrap();
}

/// Something that a client may send, most of it wrong.
fn anything() -> impl Strategy<Value = Message> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let json = prop_oneof![
        Just(r#"{"type":"hello","sample_rate":16000}"#.to_owned()),
        Just(r#"{"type":"interrupt"}"#.to_owned()),
        (any::<u32>(), any::<u64>()).prop_map(|(epoch, samples)| format!(
            r#"{{"type":"played","epoch":{epoch},"samples":{samples}}}"#
        )),
        ".*".prop_map(|text| serde_json::json!({"type": "text", "text": text}).to_string()),
        r#"\{"type":"[a-z]{1,8}"(,"[a-z]{1,6}":-?[0-9]{1,20})?\}"#,
        ".*",
    ];
    prop_oneof![
        json.prop_map(Message::text),
        bytes().prop_map(Message::binary),
        proptest::collection::vec(any::<u8>(), 0..125).prop_map(|ping| Message::Ping(ping.into())),
    ]
}

/// Bytes on the bare connection, after an upgrade or instead of one.
async fn send_bytes(server: &Running, bytes: &[u8], upgraded: bool) {
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    if upgraded {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            server.address
        );
        connection.write_all(request.as_bytes()).await.unwrap();
    }
    // It may have been closed already.
    let _ = connection.write_all(bytes).await;
    let _ = connection.shutdown().await;
    let mut rest = Vec::new();
    let read = timeout(SOON, connection.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "a connection is left open");
}

#[test]
fn nothing_that_is_sent_makes_the_server_fail() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Running::echo());
    let messages = proptest::collection::vec(anything(), 1..8);
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() };
    proptest!(config, |(messages in messages, bytes in bytes, greeted in any::<bool>())| {
        runtime.block_on(async {
            let mut client =
                if greeted { server.greeted().await } else { server.connect().await };
            for message in messages {
                if client.send(message).await.is_err() {
                    break;
                }
            }
            let _ = client.close(None).await;
            loop {
                match timeout(SOON, client.next()).await.expect("it is left open") {
                    Some(Ok(Message::Close(Some(frame)))) => {
                        let code = u16::from(frame.code);
                        assert!([1000, 1002, 1003, 1005, 1008, 1009].contains(&code), "{frame:?}");
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                }
            }
            send_bytes(&server, &bytes, greeted).await;
            assert!(server.file("/healthz").await.ends_with("ok\n"));
        });
    });
    // No task panicked, and nobody is still there.
    runtime.block_on(async {
        let gone = async {
            while server.metrics.stats().sessions_active > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, gone).await.expect("a conversation goes on without anybody");
        server.stop().await;
    });
}
