//! A conversation with a file: what is in it is said, in real time, and what is answered is played to nobody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::Player;
use crate::protocol::{ClientMessage, ServerMessage, State, TurnReport};
use crate::session::Session;

/// What is said at a time.
const BLOCK: Duration = Duration::from_millis(20);

/// How long the end of a conversation may take.
const GOODBYE: Duration = Duration::from_secs(15);

/// Something to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Speech {
    /// Samples a second.
    pub sample_rate: u32,
    /// Mono.
    pub samples: Vec<i16>,
}

/// How a conversation with a file ends.
#[derive(Debug, Clone, PartialEq)]
pub struct FileOptions {
    /// How long everything must have been quiet after the file is over.
    pub quiet: Duration,
    /// How long after the end of the file the conversation ends at the latest.
    pub most: Duration,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { quiet: Duration::from_secs(3), most: Duration::from_secs(120) }
    }
}

/// Why a file cannot be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Wav {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: hound::Error,
    },
    /// It is no speech.
    #[error("{path}: {reason}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The conversation ended before the file.
    #[error("the conversation ended: {reason}")]
    Ended {
        /// The last problem it had.
        reason: String,
    },
}

impl Speech {
    /// Reads a WAV file of any usual format; channels are mixed.
    ///
    /// # Errors
    /// [`FileError::Wav`], [`FileError::Content`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let wav = |source| FileError::Wav { path: path.into(), source };
        let mut reader = hound::WavReader::open(path).map_err(wav)?;
        let spec = reader.spec();
        let samples: Result<Vec<f32>, _> = match spec.sample_format {
            hound::SampleFormat::Float => reader.samples::<f32>().collect(),
            hound::SampleFormat::Int => {
                let scale = 1.0 / (1u64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
                reader.samples::<i32>().map(|sample| sample.map(|x| x as f32 * scale)).collect()
            }
        };
        let samples = samples.map_err(wav)?;
        let channels = usize::from(spec.channels.max(1));
        let mono =
            samples.chunks(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32);
        let samples: Vec<i16> = mono.map(|x| (x * 32767.0).round() as i16).collect();
        if samples.is_empty() || !(8000..=96_000).contains(&spec.sample_rate) {
            let reason =
                format!("{} samples at {} Hz are no speech", samples.len(), spec.sample_rate);
            return Err(FileError::Content { path: path.into(), reason });
        }
        Ok(Self { sample_rate: spec.sample_rate, samples })
    }
}

/// Says `speech`, then listens until all is quiet. Everything that is told goes to `each` as well. Returns the turns.
///
/// # Errors
/// [`FileError::Ended`].
pub async fn converse(
    mut session: Session,
    speech: &Speech,
    options: &FileOptions,
    mut each: impl FnMut(&ServerMessage),
) -> Result<Vec<TurnReport>, FileError> {
    let mut mouth = Mouth::new(speech);
    let mut player: Option<Player> = None;
    let mut turns = Vec::new();
    let mut state = State::Listening;
    let mut problem = "nothing was said why".to_owned();
    let hello = ClientMessage::Hello { sample_rate: speech.sample_rate };
    let mut open = session.input.send(hello).await.is_ok();
    let (mut quiet_since, mut over_since) = (Instant::now(), None);
    while open {
        tokio::select! {
            message = session.output.recv() => {
                let Some(message) = message else {
                    open = false;
                    continue;
                };
                each(&message);
                quiet_since = Instant::now();
                if let Some(answer) = player.as_mut().and_then(|player| player.take(&message)) {
                    open = session.input.send(answer).await.is_ok();
                }
                match message {
                    ServerMessage::Ready { sample_rate, .. } => player = Some(Player::new(sample_rate)),
                    ServerMessage::State { state: now } => state = now,
                    ServerMessage::Turn(report) => turns.push(report),
                    ServerMessage::Problem { message, .. } => problem = message,
                    _ => {}
                }
            }
            () = sleep_until(mouth.due()) => {
                let now = Instant::now();
                let block = mouth.next();
                open = session.input.send(ClientMessage::Audio(block)).await.is_ok();
                if let Some(report) = player.as_mut().and_then(|player| mouth.play(player)) {
                    open &= session.input.send(report).await.is_ok();
                }
                let silent = player.as_ref().is_none_or(Player::is_idle);
                if !mouth.is_over() || state != State::Listening || !silent {
                    quiet_since = now;
                }
                let over = *over_since.get_or_insert(now);
                if !mouth.is_over() {
                    over_since = None;
                } else if now - quiet_since >= options.quiet || now - over >= options.most {
                    goodbye(session).await;
                    return Ok(turns);
                }
            }
        }
    }
    Err(FileError::Ended { reason: problem })
}

/// Hangs up, and waits until the other side has noticed, and has written its recording to the end.
async fn goodbye(Session { input, mut output }: Session) {
    drop(input);
    let _ = timeout(GOODBYE, async { while output.recv().await.is_some() {} }).await;
}

/// Says the file block by block, then silence, and plays as much in the same time.
struct Mouth<'a> {
    speech: &'a Speech,
    started: Instant,
    blocks: u32,
    said: usize,
}

impl<'a> Mouth<'a> {
    fn new(speech: &'a Speech) -> Self {
        Self { speech, started: Instant::now(), blocks: 0, said: 0 }
    }

    /// When the next block is due.
    fn due(&self) -> Instant {
        self.started + BLOCK * self.blocks
    }

    fn is_over(&self) -> bool {
        self.said >= self.speech.samples.len()
    }

    fn next(&mut self) -> Vec<i16> {
        self.blocks += 1;
        let size = (BLOCK.as_secs_f64() * f64::from(self.speech.sample_rate)) as usize;
        let rest = self.speech.samples.get(self.said..).unwrap_or_default();
        let mut block = rest[..size.min(rest.len())].to_vec();
        self.said += block.len();
        block.resize(size, 0);
        block
    }

    /// Plays a block; what is to be reported of it, ten times a second.
    fn play(&self, player: &mut Player) -> Option<ClientMessage> {
        if player.is_idle() {
            return None;
        }
        let mut heard = vec![0; player.samples_in(BLOCK)];
        player.play(&mut heard);
        (self.blocks.is_multiple_of(5) || player.is_idle()).then(|| player.report())
    }
}
