//! The voice demo at a microphone and a speaker, which a sound server makes up.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::setup;

/// What the checks need, and the Debian packages that have it.
const PROGRAMS: [(&str, &str); 3] =
    [("pulseaudio", "pulseaudio"), ("paplay", "pulseaudio-utils"), ("pkg-config", "pkg-config")];
const LIBRARIES: [&str; 2] = ["libasound2-dev", "libasound2-plugins"];

/// Two sinks. What is played into `mic` is what the microphone hears.
const DEVICES: &str = "load-module module-null-sink sink_name=speaker rate=48000\n\
                       load-module module-null-sink sink_name=mic rate=48000\n\
                       set-default-sink speaker\n\
                       set-default-source mic.monitor\n";

/// ALSA's default device is the sound server's.
const ALSA: &str = "</usr/share/alsa/alsa.conf>\n\
                    pcm.!default { type pulse }\n\
                    ctl.!default { type pulse }\n";

/// Samples a second of what the speaker plays, in one channel of 16 bits.
const RATE: usize = 16_000;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Talks with the voice demo at a microphone and a speaker that PulseAudio makes up: a question is heard, and its answer
/// is played. No sound card is needed
///
/// PulseAudio and ALSA's headers are installed where that is possible. Where they cannot be, nothing is checked, and that
/// is said; with CI=true it is a failure.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command on the repository at `root`.
pub fn run(_: &Args, root: &Path) -> Result<()> {
    if let Err(missing) = setup::install_programs(&PROGRAMS, &LIBRARIES) {
        ensure!(!setup::is_ci(), "the sound cannot be checked: {missing:#}");
        println!("\nNOT RUN: the voice demo was not tried with --local: {missing:#}\n");
        return Ok(());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--release", "--quiet"];
    let demo = ["--example", "voice_demo", "--features", "local-audio"];
    setup::call(Command::new(cargo).current_dir(root).args(build).args(demo))?;
    talk(root, &SoundServer::start(root.join(".mk/local"))?)
}

fn talk(root: &Path, server: &SoundServer) -> Result<()> {
    let mut demo = server.command(root.join("target/release/examples/voice_demo"));
    let mut demo = Running::start(demo.arg("--local").current_dir(root).stdout(Stdio::piped()))?;
    let printed = lines(demo.0.stdout.take().context("what the demo prints")?);
    let opened = ["list", "short", "source-outputs"];
    server.wait_for(&opened, 1, "the microphone is not opened")?;
    let spoken = server.folder.join("spoken.raw");
    let listens = ["--device=speaker.monitor", "--format=s16le", "--channels=1", "--raw"];
    let mut listener = server.command("parec");
    listener.args(listens).arg(format!("--rate={RATE}")).stdout(File::create(&spoken)?);
    let listener = Running::start(&mut listener)?;
    server.wait_for(&opened, 2, "nobody listens to the speaker")?;
    let question = root.join("examples/audio/question.wav");
    setup::call(server.command("paplay").arg("--device=mic").arg(question))?;
    let heard = until(&printed, "user:")?;
    let said = until(&printed, "assistant:")?;
    drop((listener, demo));
    println!("{}\n{}", heard.trim(), said.trim());

    let bytes = fs::read(&spoken)?;
    let samples = bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
    let loud: Vec<bool> = samples.map(|sample| sample.unsigned_abs() > 300).collect();
    // The question is longer.
    let (before, after) = loud.split_at(loud.len().min(2 * RATE));
    ensure!(!before.contains(&true), "the speaker plays before the question is over");
    let count = after.iter().filter(|&&loud| loud).count();
    println!("{:.1} s of sound at the speaker", count as f64 / RATE as f64);
    ensure!(count > RATE / 5, "the answer is not heard at the speaker");
    Ok(())
}

/// The first line that begins with `word`.
fn until(printed: &mpsc::Receiver<String>, word: &str) -> Result<String> {
    let limit = Instant::now() + PATIENCE;
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        let line =
            printed.recv_timeout(left).with_context(|| format!("no {word:?} was printed"))?;
        if line.starts_with(word) {
            return Ok(line);
        }
    }
}

/// What a program prints, as it comes.
fn lines(output: std::process::ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::sync_channel(256);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A sound server of this check's own.
struct SoundServer {
    folder: PathBuf,
    socket: PathBuf,
    _running: Running,
}

impl SoundServer {
    fn start(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let socket = folder.join("socket");
        let listens =
            format!("load-module module-native-protocol-unix socket={}\n", socket.display());
        fs::write(folder.join("devices.pa"), listens + DEVICES)?;
        fs::write(folder.join("asound.conf"), ALSA)?;
        let mut server = Command::new("pulseaudio");
        server.args(["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "-F"]);
        server.arg(folder.join("devices.pa")).env("HOME", &folder).env("XDG_RUNTIME_DIR", &folder);
        let running = Running::start(server.stderr(Stdio::null()))?;
        let server = Self { folder, socket, _running: running };
        server.wait_for(&["info"], 1, "PulseAudio does not answer")?;
        Ok(server)
    }

    /// Until so many lines answer what `pactl` is asked.
    fn wait_for(&self, question: &[&str], lines: usize, problem: &str) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        let mut ask = self.command("pactl");
        ask.args(question).stderr(Stdio::null());
        while ask.output()?.stdout.lines().count() < lines {
            ensure!(Instant::now() < limit, "{problem}");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// A program whose sound is this server's.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("PULSE_SERVER", format!("unix:{}", self.socket.display()));
        command.env("HOME", &self.folder).env("XDG_RUNTIME_DIR", &self.folder);
        command.env("ALSA_CONFIG_PATH", self.folder.join("asound.conf"));
        command
    }
}

/// A process that ends with this.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Self(command.spawn().with_context(|| format!("cannot run {program}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
