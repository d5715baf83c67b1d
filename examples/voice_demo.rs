//! A conversation: speech to text, a language model, and Qwen3-TTS, in the browser, at the microphone, or with a file.
//!
//! `cargo run --release --example voice_demo`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Parser;
use mk_examples::{VoiceArgs, repo_root};
use mk_voice::Voice;
use mk_voice::client::file::{self, FileOptions, Speech};
use mk_voice::metrics::Metrics;
use mk_voice::protocol::{ServerMessage, TurnReport};
use mk_voice::server::{Server, ServerOptions};
use tracing_subscriber::EnvFilter;

/// What `--wav` without a file says.
const QUESTION: &str = "examples/audio/question.wav";

/// Talk with a language model. Without keys, doubles of the services answer.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    voice: VoiceArgs,
    /// Where the page is served
    #[arg(long, default_value = "127.0.0.1:7860")]
    bind: SocketAddr,
    /// Let other machines reach the page: whoever does talks at your expense
    #[arg(long)]
    public: bool,
    /// Pages of other origins that may talk to this server
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Conversations at a time
    #[arg(long, default_value_t = 16)]
    max_sessions: usize,
    /// Say this file instead of serving a page; a question that comes with this program if no file is named
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "")]
    wav: Option<PathBuf>,
    /// With --wav: the recording, both sides in stereo; its timeline goes beside it
    #[arg(long, value_name = "FILE", default_value = "conversation.wav", requires = "wav")]
    out: PathBuf,
    /// Use this machine's microphone and speaker instead of serving a page
    #[cfg(feature = "local-audio")]
    #[arg(long, conflicts_with = "wav")]
    local: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    // Missing is usual; what is in it and cannot be read is not.
    match dotenvy::dotenv() {
        Err(error) if !error.not_found() => bail!(".env: {error}"),
        _ => {}
    }
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let (voice, doubles) = args.voice.open().await?;
    introduce(&voice);
    #[cfg(feature = "local-audio")]
    if args.local {
        mk_voice::client::local::converse(voice.start(), print).await?;
        return Ok(());
    }
    match &args.wav {
        Some(wav) => say(&voice, wav, &args.out).await?,
        None => serve(&args, voice).await?,
    }
    if let Some(doubles) = doubles {
        doubles.shutdown().await;
    }
    Ok(())
}

fn introduce(voice: &Voice) {
    let providers = voice.providers();
    println!("listens: {}", providers.stt);
    println!("thinks:  {}", providers.llm);
    println!("speaks:  {}", providers.tts);
    if !providers.notice.is_empty() {
        println!("\n{}\n", providers.notice);
    }
}

/// Serves the page until it is interrupted.
async fn serve(args: &Args, voice: Voice) -> Result<()> {
    let options = ServerOptions {
        bind: args.bind,
        public: args.public,
        allowed_origins: args.allow_origin.clone(),
        max_sessions: args.max_sessions,
        ..ServerOptions::default()
    };
    let server = Server::bind(options, Arc::new(Metrics::new()), move || voice.start()).await?;
    println!("Talk at http://{}  (Ctrl-C ends it)", server.address());
    let interrupted = async { _ = tokio::signal::ctrl_c().await };
    server.serve(interrupted).await?;
    Ok(())
}

/// Says a file and records what becomes of it.
async fn say(voice: &Voice, wav: &Path, out: &Path) -> Result<()> {
    let wav = if wav.as_os_str().is_empty() { repo_root()?.join(QUESTION) } else { wav.into() };
    let speech = Speech::read(&wav)?;
    println!("says:    {}", wav.display());
    let session = voice.start_recording(out.into());
    let turns = file::converse(session, &speech, &FileOptions::default(), print).await?;
    turns.iter().for_each(print_turn);
    println!("\n{} (left the user, right the answer) and its timeline", out.display());
    if turns.is_empty() {
        bail!("nothing was understood in {}", wav.display());
    }
    Ok(())
}

/// What a person at a terminal wants to see of a conversation.
fn print(message: &ServerMessage) {
    match message {
        ServerMessage::User { text, done: true, .. } => println!("\nuser:      {text}"),
        ServerMessage::Assistant { text, done: true, interrupted, .. } => {
            println!("assistant: {text}{}", if *interrupted { " —" } else { "" });
        }
        ServerMessage::Tool { name, done: false } => println!("           ({name} …)"),
        ServerMessage::Problem { stage, message, .. } => {
            println!("problem while {stage}: {message}")
        }
        _ => {}
    }
}

fn print_turn(turn: &TurnReport) {
    println!("\nturn {}, milliseconds after the end of the user's speech:", turn.turn);
    for (stage, at) in turn.stages.named() {
        match at {
            Some(at) => println!("  {stage:<13} {at:>7.0}"),
            None => println!("  {stage:<13}       –"),
        }
    }
}
