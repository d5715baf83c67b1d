//! The reference file: an `.npz` that transformers' run of the checkpoint left behind.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use npyz::{DType, NpyFile, TypeChar};
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

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
        ensure!(file.order() == npyz::Order::C, "{}: stored column-major", context());
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

/// An `.npz` is a zip archive of `.npy` files.
type Archive = ZipArchive<BufReader<File>>;

fn open(path: &Path) -> Result<Archive> {
    Ok(ZipArchive::new(BufReader::new(File::open(path)?))?)
}

/// The array of this name, if the archive has it.
fn array<'a>(
    archive: &'a mut Archive,
    name: &str,
) -> Result<Option<NpyFile<ZipFile<'a, BufReader<File>>>>> {
    match archive.by_name(&format!("{name}.npy")) {
        Ok(entry) => Ok(Some(NpyFile::new(entry).with_context(|| format!("array {name}"))?)),
        Err(ZipError::FileNotFound) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("array {name}")),
    }
}

fn shape_of<R: std::io::Read>(file: &NpyFile<R>) -> Vec<usize> {
    file.shape().iter().map(|n| *n as usize).collect()
}

/// An array of token ids or counts, whatever integer type it has.
fn integers(archive: &mut Archive, name: &str) -> Result<Option<(Vec<usize>, Vec<u32>)>> {
    let Some(file) = array(archive, name)? else { return Ok(None) };
    let shape = shape_of(&file);
    let type_str = match file.dtype() {
        DType::Plain(t) => t,
        other => bail!("{name} has type {other:?}, expected integers"),
    };
    let numbers: Vec<i64> = match (type_str.type_char(), type_str.size_field()) {
        (TypeChar::Int, 4) => file.into_vec::<i32>()?.into_iter().map(i64::from).collect(),
        (TypeChar::Int, 8) => file.into_vec::<i64>()?,
        (TypeChar::Uint, 4) => file.into_vec::<u32>()?.into_iter().map(i64::from).collect(),
        _ => bail!("{name} has type {type_str}, expected i32"),
    };
    let ids = numbers
        .into_iter()
        .map(|n| u32::try_from(n).with_context(|| format!("{name} holds {n}")))
        .collect::<Result<_>>()?;
    Ok(Some((shape, ids)))
}
