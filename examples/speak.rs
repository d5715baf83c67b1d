//! Speech from a Qwen3-TTS, streamed.
//!
//! `cargo run --release --example speak -- --model Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice "Hello world" -o hello.wav`

use std::io::{StdoutLock, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use mk_examples::{Pieces, SpeechArgs, locate_speech, synthetic_speech_model};
use mk_tts::audio::{self, SampleFormat, WavWriter};
use mk_tts::config::ModelType;
use mk_tts::guard::GuardOptions;
use mk_tts::talker::TextLayout;
use mk_tts::text::{LiveOptions, TextWriter};
use mk_tts::{Chunk, Error, Finish, SpeakOptions, Speech, Tts, Voice};

/// Speak a text with a Qwen3-TTS.
#[derive(Debug, Parser)]
struct Args {
    /// What to say; "-" takes it from standard input and speaks while it arrives
    #[arg(default_value = "Hello world")]
    text: String,
    /// Checkpoint directory or hub id (owner/name); a small random one is made if not given
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    load: SpeechArgs,
    /// One of the model's own voices; its first one if not given
    #[arg(long, conflicts_with_all = ["ref_audio", "voice_file"])]
    voice: Option<String>,
    /// Clone the voice of this recording
    #[arg(long, value_name = "FILE", conflicts_with = "voice_file")]
    ref_audio: Option<PathBuf>,
    /// What is said in the recording
    #[arg(long, requires = "ref_audio")]
    ref_text: Option<String>,
    /// Clone by the sound of the voice alone, without the recording's text
    #[arg(long, requires = "ref_audio", conflicts_with = "ref_text")]
    x_vector: bool,
    /// Keep the cloned voice in a file
    #[arg(long, value_name = "FILE", requires = "ref_audio")]
    save_voice: Option<PathBuf>,
    /// A cloned voice that was kept
    #[arg(long, value_name = "FILE")]
    voice_file: Option<PathBuf>,
    /// How to speak, or, for a model that designs voices, what the voice is like
    #[arg(long)]
    instruct: Option<String>,
    /// Language of the text
    #[arg(long, default_value = "auto")]
    language: String,
    /// List the model's voices and languages, and say nothing
    #[arg(long)]
    list: bool,
    /// WAV file to write; "-" writes raw samples (16 bits, little-endian, mono) to standard output
    #[arg(short, long, default_value = "speech.wav")]
    output: PathBuf,
    /// How samples are stored in the WAV file
    #[arg(long, value_enum, default_value_t = Format::I16)]
    format: Format,
    /// When the text is given to the model; as its makers do if not given
    #[arg(long, value_enum)]
    layout: Option<Layout>,
    /// The same seed makes the same speech
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// 0 takes the most likely code each time; the checkpoint's own settings hold for what is not given
    #[arg(long)]
    temperature: Option<f32>,
    /// Sample among the k most likely codes; 0 for all
    #[arg(long)]
    top_k: Option<usize>,
    /// Sample among the smallest set of codes that has this probability
    #[arg(long)]
    top_p: Option<f32>,
    /// Frames (80 ms each) of the first piece of sound
    #[arg(long, default_value_t = 1)]
    first_chunk: usize,
    /// Frames of each later piece
    #[arg(long, default_value_t = 4)]
    chunk: usize,
    /// End after this many seconds
    #[arg(long)]
    max_seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// 16-bit integers
    I16,
    /// 32-bit floats
    F32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Layout {
    /// A token with every frame
    Streaming,
    /// All of it before the first frame
    Whole,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    let tts = args.load.load(&model_dir(&args)?)?;
    eprintln!("loaded in {:.2?}: {}", started.elapsed(), tts.describe());
    if args.list {
        return list(&tts);
    }
    let voice = voice(&args, &tts)?;
    let options = options(&args, &tts);
    let mut output = Output::open(&args, tts.sample_rate())?;
    let (speech, writing) = if args.text == "-" {
        let (writer, speech) = tts.speak_live(&voice, &options)?;
        (speech, Some(thread::spawn(move || write_text(writer))))
    } else {
        (tts.speak(&args.text, &voice, &options)?, None)
    };
    let finish = say(speech, &mut output, tts.sample_rate())?;
    output.close()?;
    if let Some(writing) = writing.filter(|_| finish == Some(Finish::EndOfSpeech)) {
        writing.join().map_err(|_| anyhow::anyhow!("reading the text panicked"))??;
    }
    Ok(())
}

fn model_dir(args: &Args) -> Result<PathBuf> {
    if let Some(model) = &args.model {
        return locate_speech(model);
    }
    eprintln!("no --model given: this is a small model of random weights, and its sound is noise");
    synthetic_speech_model(if args.ref_audio.is_some() || args.voice_file.is_some() {
        ModelType::Base
    } else if args.instruct.is_some() && args.voice.is_none() {
        ModelType::VoiceDesign
    } else {
        ModelType::CustomVoice
    })
}

fn list(tts: &Tts) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "voices: {}", tts.voices().collect::<Vec<_>>().join(", "))?;
    writeln!(out, "languages: {}", tts.languages().collect::<Vec<_>>().join(", "))?;
    Ok(())
}

/// The voice that the flags ask for.
fn voice(args: &Args, tts: &Tts) -> Result<Voice> {
    let instruction = args.instruct.as_deref();
    let voice = match tts.config().model_type {
        _ if args.voice_file.is_some() || args.ref_audio.is_some() => cloned(args, tts)?,
        ModelType::Base if args.voice.is_none() => {
            bail!("this model clones voices: give it one with --ref-audio or --voice-file")
        }
        ModelType::VoiceDesign if args.voice.is_none() => {
            let Some(description) = instruction else {
                bail!("this model designs voices: describe one with --instruct")
            };
            return Ok(tts.design_voice(description)?);
        }
        _ => match args.voice.as_deref().or_else(|| tts.voices().next()) {
            Some(name) => tts.voice(name)?,
            None => bail!("this model has no voices of its own"),
        },
    };
    Ok(instruction.map_or_else(|| voice.clone(), |how| voice.with_instruction(how)))
}

fn cloned(args: &Args, tts: &Tts) -> Result<Voice> {
    if let Some(file) = &args.voice_file {
        return Ok(tts.load_voice(file)?);
    }
    let Some(file) = &args.ref_audio else { bail!("there is no recording to clone") };
    if args.ref_text.is_none() && !args.x_vector {
        bail!("say what the recording says with --ref-text, or clone without it by --x-vector");
    }
    let voice = tts.clone_voice(&audio::read(file)?, args.ref_text.as_deref())?;
    if let Some(file) = &args.save_voice {
        voice.save(file)?;
    }
    Ok(voice)
}

fn options(args: &Args, tts: &Tts) -> SpeakOptions {
    let mut sampling = tts.sampling().clone();
    for part in [&mut sampling.talker, &mut sampling.predictor] {
        part.temperature = args.temperature.unwrap_or(part.temperature);
        part.top_k = args.top_k.unwrap_or(part.top_k);
        part.top_p = args.top_p.unwrap_or(part.top_p);
    }
    let frame = tts.samples_per_frame() as f64 / f64::from(tts.sample_rate());
    // A float out of range becomes the nearest integer.
    let max_frames = args.max_seconds.map(|seconds| (seconds / frame).ceil() as usize);
    SpeakOptions {
        language: args.language.clone(),
        layout: args.layout.map(|layout| match layout {
            Layout::Streaming => TextLayout::Streaming,
            Layout::Whole => TextLayout::Whole,
        }),
        sampling: Some(sampling),
        seed: args.seed,
        first_chunk_frames: args.first_chunk,
        chunk_frames: args.chunk,
        guard: GuardOptions { max_frames, ..GuardOptions::default() },
        // Whoever types the text may think about it.
        live: LiveOptions { idle_timeout: None, ..LiveOptions::default() },
        ..SpeakOptions::default()
    }
}

/// Hands standard input on, piece by piece, until it ends or nobody listens any more.
fn write_text(mut writer: TextWriter) -> Result<()> {
    for piece in Pieces::new(std::io::stdin().lock()) {
        match writer.push(&piece.context("reading the text")?) {
            Err(Error::TextClosed | Error::TextCancelled) => return Ok(()),
            pushed => pushed?,
        }
    }
    Ok(writer.finish()?)
}

/// Makes the speech and writes it out as it comes.
fn say(mut speech: Speech, output: &mut Output, rate: u32) -> Result<Option<Finish>> {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let started = Instant::now();
    let mut first = None;
    let mut seconds = 0.0;
    while let Some(chunk) = speech.next() {
        let chunk = chunk?;
        let elapsed = started.elapsed();
        first.get_or_insert(elapsed);
        seconds += chunk.samples.len() as f64 / f64::from(rate);
        let rtf = elapsed.as_secs_f64() / seconds;
        bar.set_message(format!("{seconds:.2} s, RTF {rtf:.2}, {} bytes of text", chunk.text.end));
        bar.tick();
        if !output.write(&chunk)? {
            speech.canceller().cancel();
        }
    }
    bar.finish_and_clear();
    let (elapsed, first) = (started.elapsed(), first.unwrap_or(Duration::ZERO));
    let rtf = elapsed.as_secs_f64() / seconds.max(f64::MIN_POSITIVE);
    let end = match speech.finish() {
        Some(Finish::EndOfSpeech) => "ended by the model".into(),
        Some(Finish::Guard(stop)) => format!("stopped by a guard: {stop:?}"),
        Some(Finish::Context) => "stopped: the context is full".into(),
        Some(Finish::Cancelled) => "cancelled".into(),
        other => format!("{other:?}"),
    };
    eprintln!(
        "{seconds:.2} s of speech in {elapsed:.2?}: RTF {rtf:.3}; first sound after {first:.0?}; {end}"
    );
    Ok(speech.finish())
}

/// Where samples go.
enum Output {
    File(WavWriter, PathBuf),
    Raw(StdoutLock<'static>),
}

impl Output {
    fn open(args: &Args, rate: u32) -> Result<Self> {
        if args.output == Path::new("-") {
            return Ok(Self::Raw(std::io::stdout().lock()));
        }
        let format = match args.format {
            Format::I16 => SampleFormat::I16,
            Format::F32 => SampleFormat::F32,
        };
        let writer = WavWriter::create(&args.output, rate, format)?;
        Ok(Self::File(writer, args.output.clone()))
    }

    /// Whether there is still someone to write for.
    fn write(&mut self, chunk: &Chunk) -> Result<bool> {
        match self {
            Self::File(writer, _) => {
                writer.write(&chunk.samples).map(|()| true).map_err(Into::into)
            }
            Self::Raw(out) => {
                let bytes: Vec<u8> =
                    chunk.to_i16().into_iter().flat_map(i16::to_le_bytes).collect();
                Ok(out.write_all(&bytes).and_then(|()| out.flush()).is_ok())
            }
        }
    }

    fn close(self) -> Result<()> {
        if let Self::File(writer, path) = self {
            writer.finish()?;
            eprintln!("{}", path.display());
        }
        Ok(())
    }
}
