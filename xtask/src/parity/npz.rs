//! Arrays in NumPy's archives.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use npyz::{DType, Deserialize, NpyFile, Order, TypeChar};
use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

/// An `.npz` is a zip archive of `.npy` files.
pub type Archive = ZipArchive<BufReader<File>>;

/// Opens an archive.
pub fn open(path: &Path) -> Result<Archive> {
    Ok(ZipArchive::new(BufReader::new(File::open(path)?))?)
}

/// The array of this name, if the archive has it.
pub fn array<'a>(
    archive: &'a mut Archive,
    name: &str,
) -> Result<Option<NpyFile<ZipFile<'a, BufReader<File>>>>> {
    match archive.by_name(&format!("{name}.npy")) {
        Ok(entry) => {
            let file = NpyFile::new(entry).with_context(|| format!("array {name}"))?;
            ensure!(file.order() == Order::C, "array {name} is stored column-major");
            Ok(Some(file))
        }
        Err(ZipError::FileNotFound) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("array {name}")),
    }
}

/// Sizes of the dimensions.
pub fn shape_of<R: Read>(file: &NpyFile<R>) -> Vec<usize> {
    file.shape().iter().map(|n| *n as usize).collect()
}

/// An array of token ids or counts, whatever integer type it has.
pub fn integers(archive: &mut Archive, name: &str) -> Result<Option<(Vec<usize>, Vec<u32>)>> {
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

/// An array that has to be there, of numbers stored as `T`, with its shape.
pub fn numbers<T: Deserialize>(archive: &mut Archive, name: &str) -> Result<(Vec<usize>, Vec<T>)> {
    let file = array(archive, name)?.with_context(|| format!("has no array `{name}`"))?;
    let shape = shape_of(&file);
    Ok((shape, file.into_vec().with_context(|| format!("array {name}"))?))
}
