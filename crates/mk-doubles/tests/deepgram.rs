//! Deepgram's own SDK understands the doubles.

use std::time::Duration;

use deepgram::common::flux_response::{FluxResponse, TurnEvent, TurnTrigger};
use deepgram::common::options::{Encoding, Endpointing, Language, Model, Options};
use deepgram::common::stream_response::StreamResponse;
use deepgram::listen::flux::{ConfigureRequest, FluxHandle};
use deepgram::listen::websocket::WebsocketHandle;
use deepgram::{Deepgram, DeepgramError};
use mk_doubles::{Doubles, DoublesOptions, ListenApi, ListenEnd, ListenScript};

/// 80 ms of silence at 16 kHz.
const CHUNK: [u8; 2560] = [0; 2560];

/// A generous limit for what takes milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

async fn doubles(listen: ListenScript) -> Doubles {
    Doubles::start(DoublesOptions {
        deepgram_key: Some("dg-test".into()),
        listen,
        ..DoublesOptions::default()
    })
    .await
    .unwrap()
}

fn sdk(doubles: &Doubles, key: &str) -> Deepgram {
    Deepgram::with_base_url_and_api_key(doubles.deepgram_url().as_str(), key).unwrap()
}

async fn flux(doubles: &Doubles, options: Options) -> FluxHandle {
    let deepgram = sdk(doubles, "dg-test");
    let transcription = deepgram.transcription();
    let request = transcription.flux_request_with_options(options);
    request.encoding(Encoding::Linear16).sample_rate(16_000).handle().await.unwrap()
}

/// Everything up to the end of the connection.
async fn all_of_flux(handle: &mut FluxHandle) -> Vec<FluxResponse> {
    let mut all = Vec::new();
    while let Some(response) = tokio::time::timeout(LIMIT, handle.receive()).await.unwrap() {
        all.push(response.unwrap());
    }
    all
}

async fn all_of_nova(handle: &mut WebsocketHandle) -> Vec<StreamResponse> {
    let mut all = Vec::new();
    while let Some(response) = tokio::time::timeout(LIMIT, handle.receive()).await.unwrap() {
        all.push(response.unwrap());
    }
    all
}

#[tokio::test]
async fn flux_turns_reach_the_sdk() {
    let doubles =
        doubles(ListenScript::turns([("What is it?", 0.5, 1.1), ("Yes.", 2.0, 2.2)])).await;
    let options =
        Options::builder().model(Model::FluxGeneralEn).eager_eot_threshold(0.4).eot_threshold(0.8);
    let mut handle = flux(&doubles, options.build()).await;
    for _ in 0..40 {
        handle.send_data(CHUNK.to_vec()).await.unwrap();
    }
    handle.close_stream().await.unwrap();
    let all = all_of_flux(&mut handle).await;
    let FluxResponse::Connected { request_id, sequence_id: 0 } = &all[0] else { panic!("{all:?}") };
    assert_eq!(handle.request_id(), Some(*request_id));
    let mut events = Vec::new();
    for (sequence, response) in all.iter().enumerate().skip(1) {
        let FluxResponse::TurnInfo { sequence_id, event, turn_index, transcript, trigger, .. } =
            response
        else {
            panic!("{response:?}")
        };
        assert_eq!(*sequence_id as usize, sequence);
        if *event != TurnEvent::Update {
            events.push((event.clone(), *turn_index, transcript.as_str(), trigger.clone()));
        }
    }
    use TurnEvent::{EagerEndOfTurn, EndOfTurn, StartOfTurn};
    let model = Some(TurnTrigger::Model);
    let expected = [
        (StartOfTurn, 0, "What", None),
        (EagerEndOfTurn, 0, "What is it?", None),
        (EndOfTurn, 0, "What is it?", model.clone()),
        (StartOfTurn, 1, "Yes.", None),
        (EagerEndOfTurn, 1, "Yes.", None),
        (EndOfTurn, 1, "Yes.", model),
    ];
    assert_eq!(events, expected);
    // 3.2 s, with an Update about every quarter where nothing else was sent.
    assert!((13..=20).contains(&all.len()), "{} messages", all.len());

    let record = doubles.until(LIMIT, |record| record.listens[0].end.is_some()).await.unwrap();
    let listen = &record.listens[0];
    assert_eq!((listen.api, &listen.end), (ListenApi::V2, &Some(ListenEnd::CloseStream)));
    assert_eq!((listen.samples, listen.audio_messages), (51_200, 40));
    assert_eq!(listen.violations, Vec::<String>::new());
    doubles.shutdown().await;
}

#[tokio::test]
async fn flux_is_configured_and_forced_by_the_sdk() {
    let doubles = doubles(ListenScript::turns([("One two three", 0.1, 0.7)])).await;
    let options = Options::builder().model(Model::FluxGeneralEn).eot_threshold(1.0);
    let mut handle = flux(&doubles, options.build()).await;
    let thresholds = deepgram::common::flux_response::ConfigureThresholds::new()
        .with_eager_eot_threshold(0.5)
        .with_eot_timeout_ms(3000);
    let request = ConfigureRequest::new().with_thresholds(thresholds).with_keyterms(["kelp"]);
    handle.configure(request).await.unwrap();
    let thresholds =
        deepgram::common::flux_response::ConfigureThresholds::new().with_eot_threshold(0.1);
    handle.configure(ConfigureRequest::new().with_thresholds(thresholds)).await.unwrap();
    for _ in 0..20 {
        handle.send_data(CHUNK.to_vec()).await.unwrap();
    }
    handle.force_end_turn().await.unwrap();
    handle.force_end_turn().await.unwrap();
    handle.close_stream().await.unwrap();
    let all = all_of_flux(&mut handle).await;
    let FluxResponse::ConfigureSuccess { thresholds, keyterms, .. } = &all[1] else {
        panic!("{all:?}")
    };
    assert_eq!((thresholds.eot_threshold, thresholds.eager_eot_threshold), (Some(1.0), Some(0.5)));
    assert_eq!((thresholds.eot_timeout_ms, keyterms), (Some(3000), &vec!["kelp".to_owned()]));
    assert!(matches!(&all[2], FluxResponse::ConfigureFailure { .. }), "{all:?}");
    let ends: Vec<_> = all
        .iter()
        .filter_map(|response| match response {
            FluxResponse::TurnInfo { event: TurnEvent::EndOfTurn, transcript, trigger, .. } => {
                Some((transcript.as_str(), trigger.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(ends, [("One two three", Some(TurnTrigger::Manual))]);
    doubles.shutdown().await;
}

#[tokio::test]
async fn nova_results_reach_the_sdk() {
    let doubles = doubles(ListenScript::turns([("Tell me more.", 0.5, 1.5)])).await;
    let deepgram = sdk(&doubles, "dg-test");
    let options = Options::builder().model(Model::Nova3).language(Language::en).punctuate(true);
    let mut handle = deepgram
        .transcription()
        .stream_request_with_options(options.build())
        .encoding(Encoding::Linear16)
        .sample_rate(16_000)
        .channels(1)
        .interim_results(true)
        .endpointing(Endpointing::CustomDurationMs(300))
        .utterance_end_ms(1000)
        .vad_events(true)
        .handle()
        .await
        .unwrap();
    assert!(handle.request_id().is_some());
    for _ in 0..40 {
        handle.send_data(CHUNK.to_vec()).await.unwrap();
    }
    handle.finalize().await.unwrap();
    handle.close_stream().await.unwrap();
    let all = all_of_nova(&mut handle).await;
    let mut seen = Vec::new();
    for response in &all {
        seen.push(match response {
            StreamResponse::TranscriptResponse {
                is_final,
                speech_final,
                from_finalize,
                channel,
                channel_index,
                ..
            } => {
                assert_eq!(channel_index, &[0, 1]);
                let text = channel.alternatives[0].transcript.as_str();
                format!("{text:?} {is_final} {speech_final} {from_finalize}")
            }
            StreamResponse::SpeechStartedResponse { .. } => "speech started".to_owned(),
            StreamResponse::UtteranceEndResponse { last_word_end, .. } => {
                format!("utterance end {last_word_end}")
            }
            StreamResponse::TerminalResponse { duration, channels, .. } => {
                format!("metadata {duration} {channels}")
            }
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        "speech started",
        r#""Tell" false false false"#,
        r#""Tell me more." true true false"#,
        "utterance end 1.5",
        r#""" false false false"#,
        r#""" true false true"#,
        "metadata 3.2 1",
    ];
    assert_eq!(seen, expected);
    doubles.shutdown().await;
}

#[tokio::test]
async fn a_wrong_key_and_a_wrong_query_are_refused() {
    let doubles = doubles(ListenScript::default()).await;
    let status = |error: DeepgramError| match error {
        DeepgramError::WsError(deepgram_error) => deepgram_error.to_string(),
        other => other.to_string(),
    };
    let wrong = sdk(&doubles, "dg-other");
    let wrong = wrong.transcription();
    let request = wrong.flux_request().encoding(Encoding::Linear16);
    let error = status(request.sample_rate(16_000).handle().await.unwrap_err());
    assert!(error.contains("401"), "{error}");
    let right = sdk(&doubles, "dg-test");
    let right = right.transcription();
    let request = right.flux_request().encoding(Encoding::Linear16);
    let error = status(request.handle().await.unwrap_err());
    assert!(error.contains("400"), "{error}");
    let refused: Vec<_> = doubles.record().listens.iter().map(|listen| listen.refused).collect();
    assert_eq!(refused, [Some(401), Some(400)]);
    doubles.shutdown().await;
}
