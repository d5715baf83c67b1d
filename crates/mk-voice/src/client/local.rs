//! A conversation at this machine's microphone and speaker.
//!
//! There is no echo canceller in between: with a loudspeaker the microphone hears the answer. Unless the user wears
//! headphones, conversations should be half-duplex ([`BargeIn::enabled`](crate::turn::BargeIn::enabled) off).

use std::time::{Duration, Instant};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{FromSample, Sample, SampleFormat, SizedSample, Stream, StreamConfig};
use rtrb::{Consumer, Producer, RingBuffer};
use tokio::time::{MissedTickBehavior, interval};

use super::Player;
use crate::audio::Resampler;
use crate::protocol::{ClientMessage, ServerMessage};
use crate::session::Session;

/// How often samples are fetched and brought.
const TICK: Duration = Duration::from_millis(10);
/// What the speaker has ahead, against the scheduler's moods.
const AHEAD: Duration = Duration::from_millis(50);

/// Why there is no conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The machine has none.
    #[error("there is no {what}")]
    Missing {
        /// "microphone" or "speaker".
        what: &'static str,
    },
    /// It cannot be used.
    #[error("the {what} cannot be used: {reason}")]
    Device {
        /// "microphone" or "speaker".
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The conversation ended.
    #[error("the conversation ended: {reason}")]
    Ended {
        /// The last problem it had.
        reason: String,
    },
}

/// Talks until the conversation ends, or for ever; everything that is told goes to `each` as well. The future is bound to
/// its thread.
///
/// # Errors
/// [`LocalError`].
pub async fn converse(
    mut session: Session,
    mut each: impl FnMut(&ServerMessage),
) -> Result<(), LocalError> {
    let host = cpal::default_host();
    let mut microphone = Microphone::open(&host)?;
    let hello = ClientMessage::Hello { sample_rate: microphone.sample_rate };
    let mut open = session.input.send(hello).await.is_ok();
    let mut out: Option<(Player, Speaker)> = None;
    let mut problem = "nothing was said why".to_owned();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0u32;
    while open {
        tokio::select! {
            message = session.output.recv() => {
                let Some(message) = message else { break };
                each(&message);
                if let ServerMessage::Ready { sample_rate, .. } = message {
                    out = Some((Player::new(sample_rate), Speaker::open(&host, sample_rate)?));
                }
                let answer = out.as_mut().and_then(|(player, _)| player.take(&message));
                if let Some(answer) = answer {
                    open = session.input.send(answer).await.is_ok();
                }
                if let ServerMessage::Problem { message, .. } = message {
                    problem = message;
                }
            }
            _ = tick.tick() => {
                ticks += 1;
                let heard = microphone.take();
                if !heard.is_empty() {
                    open = session.input.send(ClientMessage::Audio(heard)).await.is_ok();
                }
                if let Some((player, speaker)) = &mut out {
                    let busy = !player.is_idle();
                    speaker.fill(player);
                    if busy && (ticks.is_multiple_of(10) || player.is_idle()) {
                        open &= session.input.send(player.report()).await.is_ok();
                    }
                }
            }
        }
    }
    Err(LocalError::Ended { reason: problem })
}

struct Microphone {
    sample_rate: u32,
    samples: Consumer<i16>,
    /// It records for as long as this is kept.
    _stream: Stream,
}

impl Microphone {
    fn open(host: &cpal::Host) -> Result<Self, LocalError> {
        const WHAT: &str = "microphone";
        let device = host.default_input_device().ok_or(LocalError::Missing { what: WHAT })?;
        let supported = device.default_input_config().map_err(|error| failed(WHAT, error))?;
        let config = supported.config();
        let sample_rate = config.sample_rate;
        // A second: what is not fetched by then is lost.
        let (producer, samples) = RingBuffer::new(sample_rate as usize);
        let stream = match supported.sample_format() {
            SampleFormat::F32 => record::<f32>(&device, config, producer),
            SampleFormat::I16 => record::<i16>(&device, config, producer),
            SampleFormat::I32 => record::<i32>(&device, config, producer),
            other => return Err(failed(WHAT, format!("samples are {other}"))),
        };
        let stream = stream.map_err(|error| failed(WHAT, error))?;
        stream.play().map_err(|error| failed(WHAT, error))?;
        Ok(Self { sample_rate, samples, _stream: stream })
    }

    fn take(&mut self) -> Vec<i16> {
        std::iter::from_fn(|| self.samples.pop().ok()).collect()
    }
}

struct Speaker {
    samples: Producer<i16>,
    resampler: Resampler,
    /// Samples of the player that are fetched at a time, and samples of the device that it has ahead.
    block: usize,
    ahead: usize,
    _stream: Stream,
}

impl Speaker {
    fn open(host: &cpal::Host, player_rate: u32) -> Result<Self, LocalError> {
        const WHAT: &str = "speaker";
        let device = host.default_output_device().ok_or(LocalError::Missing { what: WHAT })?;
        let supported = device.default_output_config().map_err(|error| failed(WHAT, error))?;
        let config = supported.config();
        let rate = config.sample_rate;
        let resampler = Resampler::new(player_rate, rate).map_err(|error| failed(WHAT, error))?;
        let (samples, consumer) = RingBuffer::new(rate as usize);
        let stream = match supported.sample_format() {
            SampleFormat::F32 => play::<f32>(&device, config, consumer),
            SampleFormat::I16 => play::<i16>(&device, config, consumer),
            SampleFormat::I32 => play::<i32>(&device, config, consumer),
            other => return Err(failed(WHAT, format!("samples are {other}"))),
        };
        let stream = stream.map_err(|error| failed(WHAT, error))?;
        stream.play().map_err(|error| failed(WHAT, error))?;
        let block = (TICK.as_secs_f64() * f64::from(player_rate)) as usize;
        let ahead = (AHEAD.as_secs_f64() * f64::from(rate)) as usize;
        Ok(Self { samples, resampler, block, ahead, _stream: stream })
    }

    /// Brings what the device needs.
    fn fill(&mut self, player: &mut Player) {
        let capacity = self.samples.buffer().capacity();
        while capacity - self.samples.slots() < self.ahead {
            let mut block = vec![0; self.block];
            player.play(&mut block);
            for sample in self.resampler.push(&block) {
                // There is room for a second, and it is never filled so far.
                let _ = self.samples.push(sample);
            }
        }
    }
}

/// The callbacks neither wait nor allocate: they run when the sound card needs them.
fn record<T>(
    device: &cpal::Device,
    config: StreamConfig,
    mut producer: Producer<i16>,
) -> Result<Stream, cpal::Error>
where
    T: SizedSample,
    f32: FromSample<T>,
{
    let channels = usize::from(config.channels.max(1));
    let callback = move |data: &[T], _: &cpal::InputCallbackInfo| {
        for frame in data.chunks(channels) {
            let sum: f32 = frame.iter().map(|&sample| f32::from_sample(sample)).sum();
            let _ = producer.push((sum / channels as f32 * 32767.0) as i16);
        }
    };
    device.build_input_stream(config, callback, complain("microphone"), None)
}

fn play<T>(
    device: &cpal::Device,
    config: StreamConfig,
    mut consumer: Consumer<i16>,
) -> Result<Stream, cpal::Error>
where
    T: SizedSample + FromSample<i16>,
{
    let channels = usize::from(config.channels.max(1));
    let callback = move |data: &mut [T], _: &cpal::OutputCallbackInfo| {
        for frame in data.chunks_mut(channels) {
            frame.fill(T::from_sample(consumer.pop().unwrap_or(i16::EQUILIBRIUM)));
        }
    };
    device.build_output_stream(config, callback, complain("speaker"), None)
}

/// Says what is wrong with a device, once a second: some say it thousands of times while they wake up, or are gone.
fn complain(what: &'static str) -> impl FnMut(cpal::Error) + Send + 'static {
    let mut last: Option<Instant> = None;
    move |error| {
        if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            tracing::warn!("{what}: {error}");
            last = Some(Instant::now());
        }
    }
}

fn failed(what: &'static str, reason: impl std::fmt::Display) -> LocalError {
    LocalError::Device { what, reason: reason.to_string() }
}
