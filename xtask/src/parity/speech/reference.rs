//! What `tts.py` left behind: a folder with an archive for every way to speak.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::parity::npz::{self, Archive};

/// All of a checkpoint's reference.
pub struct Reference {
    pub utterances: Vec<Utterance>,
    /// The voice that the utterances are cloned from.
    pub voice: Option<Voice>,
    pub codec: Option<Waveform>,
}

/// One greedy run.
pub struct Utterance {
    pub name: String,
    pub request: Request,
    pub text_ids: Vec<u32>,
    pub instruct_ids: Vec<u32>,
    pub ref_ids: Vec<u32>,
    /// The talker's input before the first frame, `[rows][hidden_size]`.
    pub prompt: Vec<f32>,
    /// `[frames][code_groups]`.
    pub codes: Vec<u32>,
    /// Whether the end of speech followed them.
    pub ended: bool,
    pub forced: Forced,
    /// Errors of the reference's own bf16 run.
    pub yardstick: Errors,
    pub wav: Waveform,
}

/// How the model was asked to speak.
#[derive(Debug, Deserialize)]
pub struct Request {
    pub text: String,
    pub language: String,
    /// Empty for none.
    pub speaker: String,
    /// Empty for none.
    pub instruct: String,
    /// Empty where no recording is continued.
    pub ref_text: String,
    /// `streaming` or `whole`.
    pub layout: String,
}

/// Numbers along the utterance's codes, each with its width.
pub struct Forced {
    /// Ids that are kept of the logits: one, then none for `every - 1`.
    pub every: usize,
    pub logits: Rows,
    pub hidden: Rows,
    pub predictor: Rows,
}

/// An array of rows.
pub struct Rows {
    pub width: usize,
    pub numbers: Vec<f32>,
}

/// Relative errors by row, as in [`Forced`].
#[derive(Debug, Default)]
pub struct Errors {
    pub logits: Vec<f32>,
    pub hidden: Vec<f32>,
    pub predictor: Vec<f32>,
}

/// A recording and what cloning makes of it.
pub struct Voice {
    /// 24 kHz, mono.
    pub samples: Vec<f32>,
    /// `[frames][code_groups]`.
    pub codes: Vec<u32>,
    /// How much farther than the nearest the next entry of the codebook was, relative to the nearest.
    pub margins: Vec<f32>,
    pub x_vector: Vec<f32>,
}

/// What the codec makes of some codes.
pub struct Waveform {
    /// `[frames][code_groups]`; a cloned voice's own frames are not among them.
    pub codes: Vec<u32>,
    /// Samples that are kept: one, then none for `every - 1`.
    pub every: usize,
    pub samples: Vec<f32>,
}

impl Reference {
    /// Reads every archive in `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut reference = Self { utterances: Vec::new(), voice: None, codec: None };
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
            .with_context(|| format!("reference {}", folder.display()))?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "npz"));
        paths.sort();
        for path in paths {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            reference.add(&path, name).with_context(|| format!("reference {}", path.display()))?;
        }
        ensure!(!reference.utterances.is_empty(), "{}: no reference in it", folder.display());
        Ok(reference)
    }

    fn add(&mut self, path: &Path, name: String) -> Result<()> {
        let archive = &mut npz::open(path)?;
        match name.as_str() {
            "voice" => {
                let (_, wav) = npz::numbers::<i16>(archive, "wav")?;
                self.voice = Some(Voice {
                    samples: wav.into_iter().map(|x| f32::from(x) / 32768.0).collect(),
                    codes: ids(archive, "codes")?,
                    margins: npz::numbers(archive, "margins")?.1,
                    x_vector: npz::numbers(archive, "x_vector")?.1,
                });
            }
            "codec" => self.codec = Some(waveform(archive)?),
            _ => self.utterances.push(utterance(archive, name)?),
        }
        Ok(())
    }
}

fn utterance(archive: &mut Archive, name: String) -> Result<Utterance> {
    let (_, request) = npz::numbers::<u8>(archive, "request")?;
    let every = one(archive, "every")?;
    Ok(Utterance {
        name,
        request: serde_json::from_slice(&request).context("request")?,
        text_ids: ids(archive, "text_ids")?,
        instruct_ids: ids(archive, "instruct_ids")?,
        ref_ids: ids(archive, "ref_ids")?,
        prompt: npz::numbers(archive, "prompt")?.1,
        codes: ids(archive, "codes")?,
        ended: one(archive, "ended")? == 1,
        forced: Forced {
            every,
            logits: rows(archive, "logits")?,
            hidden: rows(archive, "hidden")?,
            predictor: rows(archive, "predictor_logits")?,
        },
        yardstick: Errors {
            logits: npz::numbers(archive, "bf16_logits_err")?.1,
            hidden: npz::numbers(archive, "bf16_hidden_err")?.1,
            predictor: npz::numbers(archive, "bf16_predictor_err")?.1,
        },
        wav: waveform(archive)?,
    })
}

fn waveform(archive: &mut Archive) -> Result<Waveform> {
    Ok(Waveform {
        codes: ids(archive, "codes")?,
        every: one(archive, "samples_every")?,
        samples: npz::numbers(archive, "wav")?.1,
    })
}

fn rows(archive: &mut Archive, name: &str) -> Result<Rows> {
    let (shape, numbers) = npz::numbers(archive, name)?;
    let width = shape.last().copied().unwrap_or(0);
    ensure!(width > 0, "{name} has shape {shape:?}: there is nothing in it");
    Ok(Rows { width, numbers })
}

fn ids(archive: &mut Archive, name: &str) -> Result<Vec<u32>> {
    let (_, ids) =
        npz::integers(archive, name)?.with_context(|| format!("has no array `{name}`"))?;
    Ok(ids)
}

fn one(archive: &mut Archive, name: &str) -> Result<usize> {
    let ids = ids(archive, name)?;
    let [number] = ids[..] else { anyhow::bail!("{name} is not one number") };
    Ok(number as usize)
}
