//! `mk-doubles`: doubles of Deepgram's listening and OpenAI's chat on an address, until they are interrupted.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mk_doubles::{Doubles, DoublesOptions};
use serde::de::DeserializeOwned;

/// Serves doubles of Deepgram's /v1/listen and /v2/listen and of OpenAI's /v1/chat/completions.
///
/// Prints a line of JSON with their base URLs when they answer, and the record of what they received when they are
/// interrupted.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// The only key that Deepgram's double accepts.
    #[arg(long)]
    deepgram_key: Option<String>,
    /// The only key that OpenAI's double accepts.
    #[arg(long)]
    openai_key: Option<String>,
    /// A file with what is heard (JSON of a `ListenScript`).
    #[arg(long, value_name = "FILE")]
    listen: Option<PathBuf>,
    /// A file with what is answered (JSON of a `ChatScript`).
    #[arg(long, value_name = "FILE")]
    chat: Option<PathBuf>,
    /// A file with what goes wrong (JSON, a list of `Fault`).
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// How many times faster than the real ones the doubles' clocks run.
    #[arg(long, default_value_t = 1.0)]
    time_scale: f64,
    /// Seconds without audio after which a listening connection is closed.
    #[arg(long, default_value_t = 10.0)]
    idle: f64,
    /// The seed of request ids.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mk-doubles: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let idle = Duration::try_from_secs_f64(args.idle).map_err(|e| format!("--idle: {e}"))?;
    let doubles = Doubles::start(DoublesOptions {
        bind: args.bind,
        deepgram_key: args.deepgram_key,
        openai_key: args.openai_key,
        listen: read(args.listen.as_deref())?,
        chat: read(args.chat.as_deref())?,
        faults: read(args.faults.as_deref())?,
        time_scale: args.time_scale,
        idle,
        seed: args.seed,
        ..DoublesOptions::default()
    })
    .await?;
    let (deepgram_url, openai_url) = (doubles.deepgram_url(), doubles.openai_url());
    println!("{}", serde_json::json!({"deepgram_url": deepgram_url, "openai_url": openai_url}));
    tokio::signal::ctrl_c().await?;
    println!("{}", serde_json::to_string(&doubles.record())?);
    doubles.shutdown().await;
    Ok(())
}

/// What a file says, or what is usual where there is none.
fn read<T: DeserializeOwned + Default>(file: Option<&Path>) -> Result<T, Box<dyn Error>> {
    let Some(file) = file else { return Ok(T::default()) };
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?)
}
