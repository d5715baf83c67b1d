//! Whether the loop lasts: many conversations, for long, with everything going wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mk_doubles::{ChatScript, Doubles, DoublesOptions, Fault, FaultKind, Service};
use mk_voice::protocol::TurnReport;
use mk_voice::stt::deepgram::Deepgram;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::drive::{converse, questions, voice};

/// Questions of one conversation.
const QUESTIONS: usize = 10;

/// A conversation is over when all has been quiet for so long: a recogniser that catches up may be late.
const QUIET: Duration = Duration::from_secs(10);

/// Memory goes up and down by some 10 MB with the conversations: a slope means something only over so long.
const LONG: Duration = Duration::from_secs(20 * 60);

/// Conversations for long, with faults: none may stick, no turn may be lost, nothing may grow
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Conversations at the same time
    #[arg(long, default_value_t = 16)]
    sessions: usize,
    /// How long
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Listen with Nova-3 instead of Flux
    #[arg(long)]
    nova: bool,
}

#[derive(Default)]
struct Counts {
    conversations: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    interrupted: AtomicU64,
}

impl Counts {
    fn add(&self, turns: &[TurnReport]) {
        let count =
            |which: fn(&TurnReport) -> bool| turns.iter().filter(|turn| which(turn)).count() as u64;
        self.conversations.fetch_add(1, Ordering::Relaxed);
        self.asked.fetch_add(QUESTIONS as u64, Ordering::Relaxed);
        self.answered.fetch_add(turns.len() as u64, Ordering::Relaxed);
        self.failed.fetch_add(count(|turn| turn.failed), Ordering::Relaxed);
        self.interrupted.fetch_add(count(|turn| turn.interrupted), Ordering::Relaxed);
    }
}

/// What is measured from time to time.
struct Sample {
    hours: f64,
    resident_mb: f64,
    files: usize,
    tasks: usize,
}

/// Runs the command; fails where the loop does not last.
pub async fn run(args: &Args) -> Result<()> {
    let started = Instant::now();
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let chat = ChatScript::default();
    // Their record is in this process too, and would be what grows.
    let options = DoublesOptions { chat, kept: 32, ..DoublesOptions::default() };
    let doubles = Doubles::start(options).await?;
    let voice = voice(&doubles, if args.nova { Deepgram::nova } else { Deepgram::flux })?;
    let counts = Arc::new(Counts::default());
    let speech = Arc::new(questions(QUESTIONS, Duration::from_secs(3))?);
    let mut running = JoinSet::new();
    for session in 0..args.sessions {
        let (voice, speech, counts) = (voice.clone(), Arc::clone(&speech), Arc::clone(&counts));
        // Spread over two questions.
        let delay = Duration::from_secs(10) * session as u32 / args.sessions as u32;
        running.spawn(async move {
            sleep(delay).await;
            while started.elapsed() < length {
                let began = started.elapsed();
                let turns = converse(&voice, &speech, QUIET).await?;
                counts.add(&turns);
                if turns.len() != QUESTIONS {
                    report(session, (began, started.elapsed()), &turns);
                }
            }
            anyhow::Ok(())
        });
    }
    let mut samples = Vec::new();
    let mut faults = faults().into_iter().cycle();
    while started.elapsed() < length {
        sleep(Duration::from_secs(5)).await;
        // In rounds: every other 5 s something breaks, in the streams that are open or in the next.
        if samples.len() % 2 == 0
            && let Some((on, kind)) = faults.next()
        {
            let struck = doubles.faults().strike(on, &kind);
            println!("  {:.1} s: {on:?} {kind:?}: {struck}", started.elapsed().as_secs_f64());
            if struck == 0 {
                doubles.faults().add(Fault::next(on, kind));
            }
        }
        let sample = sample(started)?;
        if samples.len() % 12 == 0 {
            print(&sample, &counts);
        }
        samples.push(sample);
    }
    doubles.faults().clear();
    // The last conversations may take as long as they are, and no longer.
    let most = Duration::from_secs(QUESTIONS as u64 * 7 + 60);
    tokio::time::timeout(most, async {
        while let Some(done) = running.join_next().await {
            done??;
        }
        anyhow::Ok(())
    })
    .await
    .map_err(|_| anyhow::anyhow!("a conversation is stuck"))??;
    doubles.shutdown().await;
    verdict(&samples, &counts, args.sessions)
}

/// What goes wrong, in turn.
fn faults() -> Vec<(Service, FaultKind)> {
    let closed = |code| FaultKind::Close { after_events: 0, code, reason: "NET-0000".into() };
    let refused = |status| FaultKind::Status { status, retry_after: None, code: None };
    vec![
        (Service::Listen, FaultKind::Drop { after_bytes: 0 }),
        (Service::Chat, FaultKind::Drop { after_bytes: 200 }),
        (Service::Listen, closed(1011)),
        (Service::Chat, refused(429)),
        // Some long pieces, or a message would take longer than until the next.
        (Service::Listen, FaultKind::Fragment { sizes: vec![1, 3, 7, 500], pause_ms: 1 }),
        (Service::Chat, FaultKind::Malformed { after_events: 3 }),
        // Slower than it may be sent, but not than it is said: else the words would come ever later.
        (Service::Listen, FaultKind::SlowRead { bytes_per_second: 36_000 }),
        (Service::Chat, FaultKind::Error { after_events: 4, code: None }),
        (Service::Chat, refused(503)),
        (Service::Chat, FaultKind::Stall { after_events: 2, for_ms: Some(4000) }),
    ]
}

/// What was said in a conversation in which not every question made a turn.
fn report(session: usize, (began, ended): (Duration, Duration), turns: &[TurnReport]) {
    println!(
        "  session {session}, from {:.1} s to {:.1} s: {} turns of {QUESTIONS} questions",
        began.as_secs_f64(),
        ended.as_secs_f64(),
        turns.len(),
    );
    for turn in turns {
        println!("    {}: {:?}", turn.turn, turn.user);
    }
}

fn sample(started: Instant) -> Result<Sample> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = resident.and_then(|line| line.split_whitespace().next()).unwrap_or("0");
    Ok(Sample {
        hours: started.elapsed().as_secs_f64() / 3600.0,
        resident_mb: kb.parse::<f64>()? / 1024.0,
        files: std::fs::read_dir("/proc/self/fd")?.count(),
        tasks: Handle::current().metrics().num_alive_tasks(),
    })
}

fn print(sample: &Sample, counts: &Counts) {
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!(
        "{:5.1} min: {:.1} MB resident, {} files, {} tasks; {} conversations, {} turns, {} failed, {} interrupted",
        sample.hours * 60.0,
        sample.resident_mb,
        sample.files,
        sample.tasks,
        of(&counts.conversations),
        of(&counts.answered),
        of(&counts.failed),
        of(&counts.interrupted),
    );
}

fn verdict(samples: &[Sample], counts: &Counts, sessions: usize) -> Result<()> {
    // The first half fills caches and pools.
    let (early, late) = samples.split_at(samples.len() / 2);
    let slope = slope(late) / sessions as f64;
    let most =
        |samples: &[Sample], of: fn(&Sample) -> usize| samples.iter().map(of).max().unwrap_or(0);
    let (asked, answered) =
        (counts.asked.load(Ordering::Relaxed), counts.answered.load(Ordering::Relaxed));
    println!("memory: {slope:+.3} MB an hour and session over the second half");
    println!(
        "files and tasks at most: {} and {} in the first half, {} and {} in the second",
        most(early, |s| s.files),
        most(early, |s| s.tasks),
        most(late, |s| s.files),
        most(late, |s| s.tasks),
    );
    println!("{asked} questions, {answered} turns");
    ensure!(answered >= asked, "{} turns are lost", asked - answered);
    ensure!(answered == asked, "{} questions made two turns", answered - asked);
    if samples.last().is_some_and(|last| last.hours < LONG.as_secs_f64() / 3600.0) {
        println!("too short to judge by whether memory grows");
    } else {
        ensure!(slope < 1.0, "memory grows");
    }
    ensure!(most(late, |s| s.files) <= most(early, |s| s.files) + sessions, "files are left open");
    ensure!(most(late, |s| s.tasks) <= most(early, |s| s.tasks) + 4 * sessions, "tasks are left");
    println!("it lasts");
    Ok(())
}

/// MB an hour, by least squares.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len().max(1) as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (hours, resident) = (mean(|s| s.hours), mean(|s| s.resident_mb));
    let over: f64 = samples.iter().map(|s| (s.hours - hours) * (s.resident_mb - resident)).sum();
    let under: f64 = samples.iter().map(|s| (s.hours - hours).powi(2)).sum();
    if under > 0.0 { over / under } else { 0.0 }
}
