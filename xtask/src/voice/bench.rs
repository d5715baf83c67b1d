//! What the loop adds to the services' own time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use mk_doubles::{ChatScript, Doubles, DoublesOptions};
use mk_voice::protocol::TurnReport;
use mk_voice::stt::deepgram::Deepgram;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::drive::{converse, questions, voice};

/// What is answered: short, so that the turns follow each other.
const ANSWERS: [&str; 3] =
    ["It is Paris, as far as I know.", "Yes, that is right.", "I would say so, yes."];

/// What the loop adds, from the end of a turn to the first audio, with services that take no time
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Conversations at the same time, one run for each number
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    sessions: Vec<usize>,
    /// Turns of each conversation
    #[arg(long, default_value_t = 12)]
    turns: usize,
}

/// Runs the command.
pub async fn run(args: &Args) -> Result<()> {
    println!("Milliseconds from the end of the turn (as the recogniser's double says it) until:\n");
    println!("| sessions | turns | stage | p50 | p95 | p99 |");
    println!("|---|---|---|---|---|---|");
    for &sessions in &args.sessions {
        let reports = measure(sessions, args.turns).await?;
        for (stage, at) in stages() {
            let mut times: Vec<f64> = reports.iter().filter_map(at).collect();
            times.sort_by(f64::total_cmp);
            ensure!(!times.is_empty(), "no turn reached {stage}");
            let rank = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
            let (p50, p95, p99) = (rank(50), rank(95), rank(99));
            println!("| {sessions} | {} | {stage} | {p50:.1} | {p95:.1} | {p99:.1} |", times.len());
        }
    }
    Ok(())
}

async fn measure(sessions: usize, turns: usize) -> Result<Vec<TurnReport>> {
    let chat = ChatScript::say(ANSWERS);
    let doubles = Doubles::start(DoublesOptions { chat, ..DoublesOptions::default() }).await?;
    let voice = voice(&doubles, Deepgram::flux)?;
    let speech = Arc::new(questions(turns, Duration::from_millis(1800))?);
    let mut running = JoinSet::new();
    for session in 0..sessions {
        // Spread over a turn, as conversations are.
        let delay = Duration::from_secs(5) * session as u32 / sessions as u32;
        let (voice, speech) = (voice.clone(), Arc::clone(&speech));
        running.spawn(async move {
            sleep(delay).await;
            converse(&voice, &speech, Duration::from_secs(1)).await
        });
    }
    let mut reports = Vec::new();
    while let Some(done) = running.join_next().await {
        let session = done??;
        ensure!(session.len() == turns, "{} turns of {turns}", session.len());
        reports.extend(session);
    }
    doubles.shutdown().await;
    Ok(reports)
}

type Stage = (&'static str, fn(&TurnReport) -> Option<f64>);

/// Times since the end of the turn; the report's are since the end of the user's speech.
fn stages() -> [Stage; 5] {
    [
        ("first token", |r| Some(r.stages.first_token? - r.stages.transcript?)),
        ("first clause", |r| Some(r.stages.first_clause? - r.stages.transcript?)),
        ("first audio made", |r| Some(r.stages.first_audio? - r.stages.transcript?)),
        ("first audio sent", |r| Some(r.stages.first_sent? - r.stages.transcript?)),
        ("first audio played", |r| Some(r.stages.first_played? - r.stages.transcript?)),
    ]
}
