//! The reference file: an `.npz` that transformers' run of the checkpoint left behind.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::npz::{array, integers, open, shape_of};

/// An open reference. Logits may be larger than memory, so they are read sequence by sequence.
pub struct Reference {
    path: PathBuf,
    /// The token ids that were fed, `[sequences][positions]`.
    pub ids: Vec<Vec<u32>>,
    /// Relative error of the reference's own bf16 run, `[sequences][positions]`.
    pub bf16_error: Option<Vec<Vec<f32>>>,
    /// What greedy decoding writes.
    pub greedy: Option<Greedy>,
    /// Vocabulary of the logits, if there are any.
    pub logits_vocab: Option<usize>,
}

/// Greedy tokens after the first `prompt_len` ids of sequence 0.
pub struct Greedy {
    pub prompt_len: usize,
    pub ids: Vec<u32>,
}

impl Reference {
    /// Reads everything but the logits.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(path).with_context(|| format!("reference {}", path.display()))
    }

    fn read(path: &Path) -> Result<Self> {
        let mut archive = open(path)?;
        let (shape, ids) = integers(&mut archive, "ids")?.context("has no array `ids`")?;
        let [sequences, positions] = shape[..] else {
            bail!("ids has shape {shape:?}, expected [sequences, positions]");
        };
        ensure!(sequences > 0 && positions > 0, "ids has shape {shape:?}: there is nothing in it");
        let ids = ids.chunks_exact(positions).map(<[u32]>::to_vec).collect();
        let expected = [sequences, positions];

        let logits_vocab = match array(&mut archive, "logits")? {
            None => None,
            Some(file) => {
                let shape = shape_of(&file);
                ensure!(
                    shape.len() == 3 && shape[..2] == expected && shape[2] > 0,
                    "logits has shape {shape:?}, expected [{sequences}, {positions}, vocabulary]"
                );
                Some(shape[2])
            }
        };
        let bf16_error = match array(&mut archive, "bf16_logits_err")? {
            None => None,
            Some(file) => {
                let shape = shape_of(&file);
                ensure!(
                    shape == expected,
                    "bf16_logits_err has shape {shape:?}, expected {expected:?}"
                );
                let errors = file.into_vec::<f32>().context("bf16_logits_err")?;
                Some(errors.chunks_exact(positions).map(<[f32]>::to_vec).collect())
            }
        };
        let greedy = match integers(&mut archive, "greedy")? {
            None => None,
            Some((_, ids)) => {
                let (_, len) = integers(&mut archive, "greedy_prompt_len")?
                    .context("has `greedy` but no `greedy_prompt_len`")?;
                let [prompt_len] = len[..] else { bail!("greedy_prompt_len is not one number") };
                let prompt_len = prompt_len as usize;
                ensure!(
                    (1..=positions).contains(&prompt_len),
                    "greedy_prompt_len is {prompt_len}, sequences have {positions} positions"
                );
                Some(Greedy { prompt_len, ids })
            }
        };
        Ok(Self { path: path.into(), ids, bf16_error, greedy, logits_vocab })
    }

    /// Calls `each` with every sequence's logits, `[positions, vocabulary]`, in order.
    pub fn for_each_logits(&self, mut each: impl FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let context = || format!("reference {}: logits", self.path.display());
        let Some(vocab) = self.logits_vocab else { return Ok(()) };
        let mut archive = open(&self.path).with_context(context)?;
        let file = array(&mut archive, "logits").with_context(context)?.with_context(context)?;
        let mut numbers = file.data::<f32>().map_err(anyhow::Error::new).with_context(context)?;
        for (sequence, ids) in self.ids.iter().enumerate() {
            let wanted = ids.len() * vocab;
            let logits: Vec<f32> =
                numbers.by_ref().take(wanted).collect::<Result<_, _>>().with_context(context)?;
            ensure!(logits.len() == wanted, "{}: ends in sequence {sequence}", context());
            each(sequence, &logits)?;
        }
        Ok(())
    }
}
