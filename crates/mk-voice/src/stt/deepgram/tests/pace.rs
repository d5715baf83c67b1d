//! How fast audio is sent.

use super::*;

/// Checks, while audio comes, that never more of it has come than Deepgram takes: `burst` seconds, and 1.25 s a second.
async fn measured(server: &mut Server, count: usize, burst: f64) -> Vec<i16> {
    let began = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < count {
        samples.extend(server.audio(1).await);
        let seconds = samples.len() as f64 / 16_000.0;
        let most = burst + 1.25 * began.elapsed().as_secs_f64();
        assert!(seconds <= most + 1e-6, "{seconds} s after {:?}", began.elapsed());
    }
    samples
}

#[tokio::test(start_paused = true)]
async fn audio_that_waited_is_caught_up_with_no_faster_than_is_allowed() {
    let (stream, mut host) = flux();
    let mut mic = Mic::new();
    let wire = host.wire().await;
    mic.speak(&stream.input, 4.0).await;
    drop(wire);
    let mut server = host.flux().await;
    let speaking = async {
        mic.next = Instant::now();
        mic.speak(&stream.input, 20.0).await;
    };
    let began = Instant::now();
    let (heard, ()) = tokio::join!(measured(&mut server, 23 * 16_000, 0.08), speaking);
    assert_eq!(heard, samples(0, heard.len() as u64));
    // Four seconds behind, a quarter of a second less each second.
    let took = began.elapsed();
    assert!(took < Duration::from_millis(19_300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn audio_that_comes_unevenly_is_passed_on_at_once() {
    let (stream, mut host) = flux();
    let mut server = host.flux().await;
    let mut mic = Mic::new();
    mic.speak(&stream.input, 1.0).await;
    server.audio(12 * 1280).await;
    // Nothing for 200 ms, then all of it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let late = Instant::now();
    mic.speak(&stream.input, 0.2).await;
    server.audio(2 * 1280).await;
    assert!(late.elapsed() < Duration::from_millis(20), "{:?}", late.elapsed());
}

#[tokio::test(start_paused = true)]
async fn audio_of_any_size_is_sent_in_frames_of_80_ms() {
    let (stream, mut host) = flux();
    let mut server = host.flux().await;
    let mut position = 0;
    for size in [0, 1, 1279, 1280, 1281, 0, 7, 16_000, 3, 320] {
        let audio = SttInput::Audio(samples(position, size));
        stream.input.send(audio).await.unwrap();
        position += size;
    }
    let mut heard = Vec::new();
    while heard.len() < 15 * 1280 {
        match server.got().await {
            Got::Audio(frame) => {
                assert_eq!(frame.len(), 1280);
                heard.extend(frame);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, samples(0, 15 * 1280));
}
