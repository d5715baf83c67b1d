//! `cargo xtask picture`: what an utterance looks like.

mod canvas;
mod spectrogram;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use mk_tts::audio::{self, Audio};

use canvas::{Canvas, Colour, Frame};
use spectrogram::Spectrogram;

/// Draw the waveform and the spectrogram of a recording as a PNG.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Audio file to draw
    audio: PathBuf,
    /// PNG file to write
    #[arg(short, long)]
    output: PathBuf,
}

const WIDTH: usize = 1200;
const HEIGHT: usize = 560;
const WAVEFORM: Frame = Frame { left: 64, top: 32, width: 1108, height: 140 };
const SPECTROGRAM: Frame = Frame { left: 64, top: 188, width: 1108, height: 330 };
/// Quieter than the loudest by this many dB is black.
const RANGE_DB: f32 = 80.0;

const PAPER: Colour = [255, 255, 255];
const INK: Colour = [60, 60, 60];
const GRID: Colour = [225, 225, 225];
const WAVE: Colour = [40, 90, 160];
/// From silent to loud.
const HEAT: [Colour; 6] =
    [[0, 0, 0], [45, 10, 90], [140, 30, 110], [220, 70, 70], [250, 160, 50], [255, 245, 190]];

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let audio = audio::read(&args.audio)?;
    ensure!(!audio.samples.is_empty(), "{}: no samples", args.audio.display());
    let name = args.audio.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let title = format!("{name}: {:.2} s at {} Hz", audio.seconds(), audio.sample_rate);
    draw(&audio, &title).write(&args.output)?;
    println!("{}", args.output.display());
    Ok(())
}

fn draw(audio: &Audio, title: &str) -> Canvas {
    let mut canvas = Canvas::new(WIDTH, HEIGHT, PAPER);
    canvas.text(WAVEFORM.left, 12, title, INK);
    draw_waveform(&mut canvas, audio);
    draw_spectrogram(&mut canvas, audio);
    draw_times(&mut canvas, audio.seconds());
    canvas
}

/// For every column the lowest and the highest of its samples.
fn draw_waveform(canvas: &mut Canvas, audio: &Audio) {
    let frame = WAVEFORM;
    let row = |sample: f32| {
        let down = (1.0 - sample.clamp(-1.0, 1.0)) / 2.0;
        frame.top + (down * (frame.height - 1) as f32).round() as usize
    };
    for (label, level) in [("1", 1.0), ("0", 0.0), ("-1", -1.0)] {
        canvas.line_right(frame.left, row(level), frame.width, GRID);
        canvas.text_before(frame.left - 6, row(level), label, INK);
    }
    let samples = &audio.samples;
    for column in 0..frame.width {
        let first = column * samples.len() / frame.width;
        let last = ((column + 1) * samples.len() / frame.width).clamp(first + 1, samples.len());
        let part = &samples[first..last];
        let high = part.iter().copied().fold(f32::MIN, f32::max);
        let low = part.iter().copied().fold(f32::MAX, f32::min);
        canvas.line_down(frame.left + column, row(high), row(low) - row(high) + 1, WAVE);
    }
}

fn draw_spectrogram(canvas: &mut Canvas, audio: &Audio) {
    let frame = SPECTROGRAM;
    let spectrogram = Spectrogram::new(&audio.samples, frame.width);
    for (column, levels) in spectrogram.columns().enumerate() {
        for row in 0..frame.height {
            // The lowest frequency is at the bottom.
            let up = (frame.height - 1 - row) as f32 / (frame.height - 1) as f32;
            let level = spectrogram::between(levels, up);
            let heat = 1.0 + (level - spectrogram.loudest()) / RANGE_DB;
            canvas.set(frame.left + column, frame.top + row, colour(heat));
        }
    }
    let nyquist = audio.sample_rate as f32 / 2.0;
    let step = step(f64::from(nyquist) / 1000.0, 6.0) * 1000.0;
    for tick in (0..).map(|i| f64::from(i) * step).take_while(|&tick| tick <= f64::from(nyquist)) {
        let up = (tick / f64::from(nyquist) * (frame.height - 1) as f64).round() as usize;
        let row = frame.top + frame.height - 1 - up;
        canvas.text_before(frame.left - 6, row, &format!("{} kHz", tick / 1000.0), INK);
    }
}

fn draw_times(canvas: &mut Canvas, seconds: f64) {
    let step = step(seconds, 12.0);
    let bottom = SPECTROGRAM.top + SPECTROGRAM.height;
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    for tick in (0..).map(|i| f64::from(i) * step).take_while(|&tick| tick <= seconds) {
        let column = (tick / seconds * (SPECTROGRAM.width - 1) as f64).round() as usize;
        canvas.line_down(SPECTROGRAM.left + column, bottom, 5, INK);
        let label = format!("{tick:.decimals$} s");
        canvas.text_centred(SPECTROGRAM.left + column, bottom + 12, &label, INK);
    }
}

/// The least of 1, 2 and 5 times a power of ten that goes into `length` at most `most` times.
fn step(length: f64, most: f64) -> f64 {
    let power = 10f64.powf((length / most).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| length / step <= most).unwrap_or(length)
}

/// 0 is silent, 1 as loud as it gets.
fn colour(heat: f32) -> Colour {
    let position = heat.clamp(0.0, 1.0) * (HEAT.len() - 1) as f32;
    let below = (position as usize).min(HEAT.len() - 2);
    let part = position - below as f32;
    std::array::from_fn(|i| {
        let (a, b) = (f32::from(HEAT[below][i]), f32::from(HEAT[below + 1][i]));
        (a + (b - a) * part).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_where_it_belongs() {
        let samples = (0..24_000).map(|i| {
            let phase = std::f32::consts::TAU * 3_000.0 * i as f32 / 24_000.0;
            // Silence, then 3 kHz, a quarter of the way up.
            if i < 12_000 { 0.0 } else { 0.5 * phase.sin() }
        });
        let audio = Audio { samples: samples.collect(), sample_rate: 24_000 };
        let canvas = draw(&audio, "tone");
        let frame = SPECTROGRAM;
        let loud = |column: usize| {
            let heat = |row: &usize| {
                let colour = canvas.get(frame.left + column, frame.top + row);
                colour.iter().map(|&part| u32::from(part)).sum::<u32>()
            };
            (0..frame.height).max_by_key(heat).filter(|row| heat(row) > 600)
        };
        let row = loud(840).expect("the tone");
        assert!(row.abs_diff(frame.height * 3 / 4) <= 2, "{row}");
        assert_eq!(loud(280), None);
        // The waveform is a line, then half of the height.
        let waves = |column: usize| {
            let rows = WAVEFORM.top..WAVEFORM.top + WAVEFORM.height;
            rows.filter(|&row| canvas.get(WAVEFORM.left + column, row) == WAVE).count()
        };
        assert_eq!(waves(280), 1);
        assert!(waves(840).abs_diff(WAVEFORM.height / 2) <= 3);
    }

    #[test]
    fn pictures_of_little_and_of_nothing() {
        for samples in [vec![0.0], vec![0.5; 3], vec![0.0; 100_000]] {
            draw(&Audio { samples, sample_rate: 8_000 }, "short");
        }
    }

    #[test]
    fn steps_are_round() {
        assert_eq!((step(12.0, 6.0), step(3.2, 12.0), step(60.0, 12.0)), (2.0, 0.5, 5.0));
    }

    #[test]
    fn the_file_is_the_picture() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("new/picture.png");
        let audio = Audio { samples: vec![0.1; 4_000], sample_rate: 8_000 };
        let canvas = draw(&audio, "a file");
        canvas.write(&path).expect("room");
        let file = std::io::BufReader::new(std::fs::File::open(&path).expect("the file"));
        let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("a picture");
        assert_eq!((info.width as usize, info.height as usize), (WIDTH, HEIGHT));
        let at = (SPECTROGRAM.top * WIDTH + SPECTROGRAM.left) * 3;
        assert_eq!(pixels[at..at + 3], canvas.get(SPECTROGRAM.left, SPECTROGRAM.top));
    }
}
