//! Deepgram's client against the double of Deepgram, over real sockets and in real time: what must hold whatever goes
//! wrong.

use std::time::Duration;

use futures_util::future::join_all;
use mk_doubles::{
    Doubles, DoublesOptions, Fault, FaultKind, ListenApi, ListenEnd, ListenScript, Record, Service,
};
use mk_voice::Secret;
use mk_voice::stt::deepgram::{Deepgram, DeepgramOptions};
use mk_voice::stt::{Stt, SttEvent, SttInput, SttStream};
use tokio::time::{Instant, sleep_until, timeout};

const KEY: &str = "dg-a-key-of-the-test";

const SAID: &str = "What is the capital of France?";

/// Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

async fn doubles(listen: ListenScript, faults: Vec<Fault>) -> Doubles {
    let options = DoublesOptions {
        deepgram_key: Some(KEY.into()),
        listen,
        faults: faults.into(),
        ..DoublesOptions::default()
    };
    Doubles::start(options).await.expect("doubles")
}

fn options(doubles: &Doubles) -> DeepgramOptions {
    DeepgramOptions {
        url: doubles.deepgram_url(),
        key: Secret::new(KEY),
        connect_timeout: Duration::from_secs(2),
        ..DeepgramOptions::default()
    }
}

/// Half a second of silence, a second of a tone, then silence: what a script by energy takes for a turn.
fn sound(position: usize) -> i16 {
    let seconds = position as f64 / 16_000.0;
    let tone = 8000.0 * (seconds * 440.0 * std::f64::consts::TAU).sin();
    if (0.5..1.5).contains(&seconds) { tone as i16 } else { 0 }
}

/// Speaks for as long as it is polled, in real time.
async fn speak(stream_input: tokio::sync::mpsc::Sender<SttInput>) {
    let began = Instant::now();
    for piece in 0.. {
        sleep_until(began + Duration::from_millis(20) * piece).await;
        let from = piece as usize * 320;
        let audio = SttInput::Audio((from..from + 320).map(sound).collect());
        if stream_input.send(audio).await.is_err() {
            return;
        }
    }
}

/// Events until `done` says that this was the last, while audio is spoken.
async fn heard(stream: &mut SttStream, mut done: impl FnMut(&SttEvent) -> bool) -> Vec<SttEvent> {
    let mut events = Vec::new();
    let listening = async {
        while let Some(event) = stream.events.recv().await {
            let last = done(&event);
            events.push(event);
            if last {
                break;
            }
        }
    };
    let input = stream.input.clone();
    let listened = async {
        tokio::select! {
            () = listening => {}
            () = async { speak(input).await; std::future::pending().await } => {}
        }
    };
    timeout(LIMIT, listened).await.expect("an end within a minute");
    in_order(&events);
    events
}

fn is_end(event: &SttEvent) -> bool {
    matches!(event, SttEvent::TurnEnded { .. })
}

/// Checks what `SttEvent` promises.
fn in_order(events: &[SttEvent]) {
    let (mut open, mut likely, mut failed) = (false, None, false);
    for event in events {
        assert!(!failed, "{event:?} after the failure in {events:?}");
        match event {
            SttEvent::TurnStarted => assert!(!std::mem::replace(&mut open, true), "{events:?}"),
            SttEvent::Partial { .. } => assert!(open && likely.is_none(), "{events:?}"),
            SttEvent::LikelyEnd { text } => {
                assert!(open && !text.is_empty(), "{events:?}");
                likely = Some(text.clone());
            }
            SttEvent::Resumed => assert!(likely.take().is_some(), "{events:?}"),
            SttEvent::TurnEnded { text, .. } => {
                assert!(std::mem::replace(&mut open, false), "{events:?}");
                assert!(likely.take().is_none_or(|likely| likely == *text), "{events:?}");
            }
            SttEvent::Failed(_) => failed = true,
            SttEvent::Connected | SttEvent::Lost { .. } | SttEvent::Restored { .. } => {}
        }
    }
}

/// The texts of the turns.
fn turns(events: &[SttEvent]) -> Vec<&str> {
    let texts = events.iter().filter_map(|event| match event {
        SttEvent::TurnEnded { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// Nothing was done on any connection that Deepgram forbids.
fn well_behaved(record: &Record) {
    for listen in &record.listens {
        assert!(listen.violations.is_empty(), "{:?}", listen.violations);
        assert_eq!(listen.over_rate_seconds, 0.0, "{listen:?}");
    }
}

#[tokio::test]
async fn flux_hears_a_turn() {
    let doubles = doubles(ListenScript::turns([(SAID, 0.5, 1.4)]), Vec::new()).await;
    let options = DeepgramOptions {
        eager_eot_threshold: Some(0.5),
        keyterms: vec!["Paris".into()],
        ..options(&doubles)
    };
    let deepgram = Deepgram::flux(options).expect("options");
    let mut stream = deepgram.listen();
    let events = heard(&mut stream, is_end).await;
    assert_eq!(events[..2], [SttEvent::Connected, SttEvent::TurnStarted]);
    assert!(events.contains(&SttEvent::LikelyEnd { text: SAID.into() }), "{events:?}");
    let partials = events.iter().filter(|event| matches!(event, SttEvent::Partial { .. }));
    assert!(partials.count() >= 4, "{events:?}");
    let Some(SttEvent::TurnEnded { text, speech_end: Some(end) }) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!(text, SAID);
    assert!((end.as_secs_f64() - 1.4).abs() < 0.3, "{end:?}");

    drop(stream);
    let record = doubles.until(LIMIT, |record| record.listens[0].end.is_some()).await;
    let record = record.expect("the end of the connection");
    well_behaved(&record);
    let listen = &record.listens[0];
    assert_eq!((listen.api, &listen.end), (ListenApi::V2, &Some(ListenEnd::CloseStream)));
    assert!(listen.query.contains(&("keyterm".into(), "Paris".into())), "{:?}", listen.query);
    let sent = deepgram.usage().audio.as_secs_f64();
    assert!((sent - listen.audio_seconds).abs() < 0.5, "{sent} {}", listen.audio_seconds);
}

#[tokio::test]
async fn nova_hears_a_turn_that_the_local_detector_ends() {
    // As silence would end it after five seconds only.
    let doubles = doubles(ListenScript::turns([(SAID, 0.5, 1.4), ("More?", 8.0, 9.0)]), Vec::new());
    let doubles = doubles.await;
    let options = DeepgramOptions { endpointing_ms: None, ..options(&doubles) };
    let mut stream = Deepgram::nova(options).expect("options").listen();
    let input = stream.input.clone();
    let mut spoken = 0;
    let events = heard(&mut stream, |event| {
        if matches!(event, SttEvent::Partial { text } if text.ends_with('?')) && spoken == 0 {
            spoken += 1;
            input.try_send(SttInput::SpeechStopped).expect("room");
        }
        is_end(event)
    });
    let events = events.await;
    assert_eq!(turns(&events), [SAID]);
    drop((stream, input));
    let record = doubles.until(LIMIT, |record| record.listens[0].end.is_some()).await;
    let record = record.expect("the end of the connection");
    well_behaved(&record);
    let controls = &record.listens[0].controls;
    assert!(controls.iter().any(|message| message["type"] == "Finalize"), "{controls:?}");
}

#[tokio::test]
async fn nova_is_kept_through_silence_and_flux_comes_back_after_it() {
    let script = || ListenScript::turns([(SAID, 0.5, 1.4)]);
    let both = [doubles(script(), Vec::new()).await, doubles(script(), Vec::new()).await];
    let mut streams = [
        Deepgram::nova(options(&both[0])).expect("options").listen(),
        Deepgram::flux(options(&both[1])).expect("options").listen(),
    ];
    for stream in &mut streams {
        let events = heard(stream, is_end).await;
        assert_eq!(turns(&events), [SAID]);
    }
    // Longer than Deepgram waits.
    tokio::time::sleep(Duration::from_secs(12)).await;
    for (stream, doubles) in streams.iter_mut().zip(&both) {
        assert!(stream.events.try_recv().is_err());
        well_behaved(&doubles.record());
    }
    assert!(
        both[0].record().listens[0].keep_alives >= 2 && both[0].record().listens[0].end.is_none()
    );
    assert_eq!(both[1].record().listens[0].end, Some(ListenEnd::CloseStream));
    let [_, flux] = &mut streams;
    let events = heard(flux, is_end).await;
    assert_eq!(turns(&events), [SAID]);
    assert_eq!(both[1].record().listens_total, 2);
}

#[tokio::test]
async fn a_wrong_key_fails_and_is_not_told() {
    let doubles = doubles(ListenScript::default(), Vec::new()).await;
    let key = Secret::new("dg-another-key");
    let options = DeepgramOptions { key, ..options(&doubles) };
    for deepgram in [Deepgram::flux(options.clone()), Deepgram::nova(options)] {
        let deepgram = deepgram.expect("options");
        assert!(!format!("{deepgram:?}").contains("dg-another-key"));
        let mut stream = deepgram.listen();
        let events = heard(&mut stream, |event| matches!(event, SttEvent::Failed(_))).await;
        let [SttEvent::Failed(error)] = &events[..] else { panic!("{events:?}") };
        let error = error.to_string();
        assert!(error.contains("401") && !error.contains("dg-another-key"), "{error}");
        assert_eq!(stream.events.recv().await, None);
    }
    assert_eq!(doubles.record().listens_total, 2);
}

/// What a turn must come through, and whether the connection is lost by it.
fn troubles() -> Vec<(FaultKind, bool)> {
    let code = || None;
    vec![
        (FaultKind::Drop { after_bytes: 0 }, true),
        (FaultKind::Drop { after_bytes: 400 }, true),
        (FaultKind::Drop { after_bytes: 2500 }, true),
        (FaultKind::Fragment { sizes: vec![1, 2, 3, 50], pause_ms: 0 }, false),
        (FaultKind::Fragment { sizes: vec![700], pause_ms: 5 }, false),
        (FaultKind::SlowRead { bytes_per_second: 40_000 }, false),
        (FaultKind::Status { status: 429, retry_after: Some(1), code: code() }, true),
        (FaultKind::Status { status: 503, retry_after: None, code: code() }, true),
        (FaultKind::Delay { ms: 700 }, false),
        (FaultKind::Malformed { after_events: 2 }, false),
        (FaultKind::Error { after_events: 2, code: code() }, true),
        (FaultKind::Close { after_events: 4, code: 1011, reason: "NET-0000".into() }, true),
        (FaultKind::NoConnected, true),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_a_turn_is_heard_once() {
    let tries = troubles().into_iter().map(|(kind, loses)| async move {
        let fault = Fault::next(Service::Listen, kind.clone());
        let doubles = doubles(ListenScript::energy([SAID]), vec![fault]).await;
        let mut stream = Deepgram::flux(options(&doubles)).expect("options").listen();
        let mut events = heard(&mut stream, is_end).await;
        // Whatever is still on its way is no other turn.
        tokio::time::sleep(Duration::from_secs(1)).await;
        while let Ok(event) = stream.events.try_recv() {
            events.push(event);
        }
        in_order(&events);
        assert_eq!(turns(&events), [SAID], "with {kind:?}: {events:?}");
        let lost = events.iter().any(|event| matches!(event, SttEvent::Lost { .. }));
        assert_eq!(lost, loses, "with {kind:?}: {events:?}");
        well_behaved(&doubles.record());
    });
    join_all(tries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_struck_in_a_turn_lose_nothing_of_it() {
    let doubles = doubles(ListenScript::energy([SAID]), Vec::new()).await;
    let mut stream = Deepgram::flux(options(&doubles)).expect("options").listen();
    let mut strikes = 0;
    let events = heard(&mut stream, |event| {
        // As soon as the first words are known, twice.
        if matches!(event, SttEvent::Partial { .. } | SttEvent::Restored { .. }) && strikes < 2 {
            strikes += 1;
            let hit = doubles.faults().strike(Service::Listen, &FaultKind::Drop { after_bytes: 0 });
            assert_eq!(hit, 1);
        }
        is_end(event)
    });
    let events = events.await;
    assert_eq!(turns(&events), [SAID]);
    let lost = events.iter().filter(|event| matches!(event, SttEvent::Lost { .. })).count();
    assert_eq!(lost, 2, "{events:?}");
    well_behaved(&doubles.record());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_conversations_are_heard_at_once() {
    let doubles = doubles(ListenScript::energy([SAID]), Vec::new()).await;
    let flux = Deepgram::flux(options(&doubles)).expect("options");
    let nova = Deepgram::nova(options(&doubles)).expect("options");
    let conversations = (0..16).map(|number| {
        let mut stream = if number % 2 == 0 { flux.listen() } else { nova.listen() };
        async move {
            let events = heard(&mut stream, is_end).await;
            assert_eq!(turns(&events), [SAID]);
        }
    });
    join_all(conversations).await;
    well_behaved(&doubles.record());
}
