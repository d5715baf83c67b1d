//! `cargo xtask test`: everything that must hold before a change lands.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::{goldens, setup};

/// Format, lints, documentation, tests, the examples and the tasks, run for real.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command; ends at the first step that fails.
pub fn run(_: &Args) -> Result<()> {
    let root = mk_examples::repo_root()?;
    let started = Instant::now();
    let cargo = |args: &str| run_cargo(&root, args, &[]);
    cargo("fmt --all --check")?;
    let clippy = "clippy --workspace --all-targets --quiet";
    let features = if has_alsa() { "--features local-audio " } else { "" };
    cargo(&format!("{clippy} {features}-- -D warnings"))?;
    kernels(&root)?;
    // Its tests say so where there is no GPU.
    cargo("clippy --package mk-model --features cuda --all-targets --quiet -- -D warnings")?;
    cargo("test --package mk-sys --features cuda --quiet")?;
    cargo("test --package mk-model --features cuda --quiet --lib backend::cuda")?;
    run_cargo(&root, "doc --workspace --no-deps --quiet", &[("RUSTDOCFLAGS", "-D warnings")])?;
    cargo("test --workspace --quiet")?;
    examples(&root)?;
    tasks(&root)?;
    voice(&root)?;
    println!("\nall of it passed in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The CUDA kernels for every chip, which takes a compiler but no GPU.
fn kernels(root: &Path) -> Result<()> {
    let xtask = "run --release --quiet --bin xtask --";
    if mk_sys::nvcc::find(root).is_none() {
        run_cargo(root, &format!("{xtask} setup --cuda"), &[])?;
    }
    run_cargo(root, &format!("{xtask} kernels"), &[])
}

/// The examples, as the README shows them: without a model and without a network.
fn examples(root: &Path) -> Result<()> {
    let generate = "run --release --quiet --example generate -- --max-tokens 24";
    let text = output(root, &format!("{generate} --seed 7"))?;
    ensure!(text.starts_with("The capital of France is"), "generate printed {text:?}");
    ensure!(
        text == output(root, &format!("{generate} --seed 7"))?,
        "the same seed made another text"
    );
    let report: serde_json::Value = serde_json::from_str(&output(
        root,
        &format!("{generate} --chat --thinking false --json"),
    )?)?;
    let ids = report["ids"].as_array().map_or(0, Vec::len);
    ensure!((1..=24).contains(&ids), "generate --json reported {report}");
    speak(root)
}

/// Speech of a text that is known, and of the same while it arrives.
fn speak(root: &Path) -> Result<()> {
    let speak = "run --release --quiet --example speak -- --max-seconds 1.2 --seed 7";
    let wav = ".mk/test/speech.wav";
    std::fs::create_dir_all(root.join(".mk/test"))?;
    run_cargo(root, &format!("{speak} One,two. -o {wav}"), &[])?;
    let audio = mk_tts::audio::read(root.join(wav))?;
    ensure!(audio.rms_db() > -60.0, "speak wrote {:.2} s of silence", audio.seconds());
    run_cargo(root, &format!("{speak} One,two. --layout streaming -o {wav}"), &[])?;
    let whole = mk_tts::audio::read(root.join(wav))?;
    let mut live = command(root, &format!("{speak} - -o {wav}"));
    let mut child = live.stdin(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no way to write to it")?;
    for piece in [" On", "e,", "two", ".\n"] {
        input.write_all(piece.as_bytes())?;
    }
    drop(input);
    ensure!(child.wait()?.success(), "speak failed with a text that arrives");
    let live = mk_tts::audio::read(root.join(wav))?;
    // The codec rounds in another way where it is handed the frames in other portions.
    let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-3;
    let same = live.samples.iter().zip(&whole.samples).all(near);
    ensure!(same && live.seconds() == whole.seconds(), "a text that arrives sounds another way");
    run_cargo(
        root,
        &format!("run --release --quiet --bin xtask -- picture {wav} -o .mk/test/speech.png"),
        &[],
    )
}

/// The tasks, on the goldens: parity must hold, and must fail where the model is another.
fn tasks(root: &Path) -> Result<()> {
    let xtask = "run --release --quiet --bin xtask --";
    let cargo = |args: &str| run_cargo(root, &format!("{xtask} {args}"), &[]);
    cargo("doctor")?;
    let reference = format!("{}/tiny.npz", goldens::FOLDER);
    cargo("synth .mk/test/tiny")?;
    cargo(&format!("parity --model .mk/test/tiny --reference {reference} --dtype f32"))?;
    cargo(&format!("parity --model .mk/test/tiny --reference {reference} --dtype bf16"))?;
    cargo("synth .mk/test/other --seed 1")?;
    let other = format!("{xtask} parity --model .mk/test/other --reference {reference}");
    ensure!(output(root, &other).is_err(), "parity held for another model's reference");
    let reference = format!("{}/tiny-base", goldens::SPEECH_FOLDER);
    cargo("synth .mk/test/speech --tts base")?;
    cargo(&format!("parity --model .mk/test/speech --reference {reference} --dtype f32"))?;
    cargo(&format!("parity --model .mk/test/speech --reference {reference} --dtype bf16"))?;
    cargo("synth .mk/test/other-speech --tts base --seed 1")?;
    let other = format!("{xtask} parity --model .mk/test/other-speech --reference {reference}");
    ensure!(output(root, &other).is_err(), "parity held for another model's speech");
    cargo("bench --model .mk/test/tiny --positions 0,64 --prefill 64 --no-peers")?;
    cargo("fuzz --runs 2000")
}

/// A conversation with a file, the doubles against the vendors' SDKs, the page in a browser, the loop's benchmark, and a
/// conversation at a microphone.
fn voice(root: &Path) -> Result<()> {
    let wav = ".mk/test/conversation.wav";
    let demo = format!("run --release --quiet --example voice_demo -- --wav --out {wav}");
    let printed = output(root, &demo)?;
    ensure!(printed.contains("first_played"), "voice_demo printed {printed}");
    let audio = mk_tts::audio::read(root.join(wav))?;
    ensure!(audio.rms_db() > -60.0, "voice_demo recorded {:.2} s of silence", audio.seconds());
    let xtask = "run --release --quiet --bin xtask --";
    let cargo = |args: &str| run_cargo(root, &format!("{xtask} {args}"), &[]);
    cargo("doubles")?;
    cargo("browser")?;
    cargo("voice bench --sessions 2 --turns 2")?;
    cargo("voice local")
}

/// Whether what needs a sound card's headers can be compiled here; says so where it cannot.
fn has_alsa() -> bool {
    let known = || {
        let alsa = Command::new("pkg-config").args(["--exists", "alsa"]).status();
        alsa.is_ok_and(|status| status.success())
    };
    if known() {
        return true;
    }
    if let Err(missing) = setup::install_debian(&["libasound2-dev", "pkg-config"]) {
        println!("\nNOT CHECKED: the feature local-audio: {missing:#}\n");
    }
    known()
}

fn run_cargo(root: &Path, args: &str, env: &[(&str, &str)]) -> Result<()> {
    println!("\n$ cargo {args}");
    let started = Instant::now();
    let status = command(root, args).envs(env.iter().copied()).status()?;
    if !status.success() {
        bail!("cargo {args}: {status}");
    }
    println!("({:.0} s)", started.elapsed().as_secs_f64());
    Ok(())
}

/// What a command prints.
fn output(root: &Path, args: &str) -> Result<String> {
    println!("\n$ cargo {args}");
    let output = command(root, args).output()?;
    ensure!(output.status.success(), "cargo {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("printed text that is not UTF-8")
}

fn command(root: &Path, args: &str) -> Command {
    // The cargo that runs this task, and so its toolchain.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(args.split(' '));
    command
}
