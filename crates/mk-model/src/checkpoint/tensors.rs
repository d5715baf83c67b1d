//! Safetensors files, single or sharded, mapped into memory.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use safetensors::tensor::Metadata;
use serde::Deserialize;

use crate::error::{Error, Problem, Result};
use crate::raw::mmap::Map;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// bfloat16: the upper half of an f32.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

impl Dtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// One tensor of a mapped file. Cloning it copies no numbers.
#[derive(Debug, Clone)]
pub struct Tensor {
    name: Arc<str>,
    dtype: Dtype,
    shape: Vec<usize>,
    map: Arc<Map>,
    range: Range<usize>,
}

impl Tensor {
    /// The name in the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the numbers are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Sizes of the dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The numbers as they lie in the file: little-endian, row-major.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }

    /// The numbers without a copy, where they are stored as `T` and aligned for it.
    pub(crate) fn mapped<T: Stored>(&self) -> Option<&[T]> {
        (self.dtype == T::DTYPE && cfg!(target_endian = "little"))
            .then(|| bytemuck::try_cast_slice(self.bytes()).ok())
            .flatten()
    }

    /// A copy of the numbers as f32; exact from all three types.
    pub fn to_f32(&self) -> Vec<f32> {
        widen(self.dtype, self.bytes())
    }

    /// One row of a matrix `[rows, cols]` as f32, as an embedding is looked up; `None` beyond the last row or for a
    /// tensor that is no matrix.
    pub fn row(&self, row: usize) -> Option<Vec<f32>> {
        let &[rows, cols] = self.shape() else { return None };
        let bytes = cols * self.dtype.size();
        (row < rows).then(|| widen(self.dtype, &self.bytes()[row * bytes..][..bytes]))
    }
}

fn widen(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::Bf16 => pairs(bytes).map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => pairs(bytes).map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
    }
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> {
    bytes.chunks_exact(2).map(|b| [b[0], b[1]])
}

/// A number type that tensors may be stored as.
pub(crate) trait Stored: bytemuck::Pod {
    const DTYPE: Dtype;
}

/// bf16, as bits.
impl Stored for u16 {
    const DTYPE: Dtype = Dtype::Bf16;
}

impl Stored for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

/// All tensors of a checkpoint directory.
#[derive(Debug)]
pub struct TensorFiles {
    tensors: BTreeMap<String, Tensor>,
    /// What the files themselves get wrong, to be reported with what the config finds wrong with them.
    problems: Vec<Problem>,
}

impl TensorFiles {
    /// Maps `model.safetensors`, or else the shards that `model.safetensors.index.json` lists, in `dir`.
    ///
    /// # Errors
    /// A file that is missing, truncated or no safetensors file. Tensors of a type we do not read are kept as
    /// problems and reported by [`super::Checkpoint::audit`] together with everything else.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut files = Self { tensors: BTreeMap::new(), problems: Vec::new() };
        let index = dir.join(INDEX);
        if dir.join(SINGLE).exists() {
            files.add_file(&dir.join(SINGLE), |_| true)?;
        } else if index.exists() {
            let text = super::read_text(&index)?;
            let weight_map =
                parse_index(&text).map_err(|reason| Error::Json { path: index.clone(), reason })?;
            files.add_shards(dir, &weight_map)?;
        } else {
            return Err(Error::NoWeights { path: dir.into() });
        }
        Ok(files)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// All tensors by name.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.values()
    }

    /// What was wrong with the files, short of making them unreadable.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn add_shards(&mut self, dir: &Path, weight_map: &BTreeMap<String, String>) -> Result<()> {
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            let listed = |name: &str| weight_map.get(name).is_none_or(|file| file == shard);
            self.add_file(&dir.join(shard), listed).map_err(|error| match error {
                Error::Io { path, source } if source.kind() == io::ErrorKind::NotFound => {
                    let reason = format!("not there, although {INDEX} lists it");
                    Error::Io { path, source: io::Error::new(source.kind(), reason) }
                }
                error => error,
            })?;
        }
        let absent = weight_map.iter().filter(|(name, _)| !self.tensors.contains_key(*name));
        let absent: Vec<Problem> = absent
            .filter(|(name, _)| !self.problems.iter().any(|p| is_about(p, name)))
            .map(|(name, file)| Problem::BadField {
                field: format!("{INDEX}: weight_map"),
                reason: format!("says that {file} holds {name}, which it does not"),
            })
            .collect();
        self.problems.extend(absent);
        Ok(())
    }

    /// Adds the tensors of one file whose names `wanted` accepts.
    fn add_file(&mut self, path: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let broken = |reason: String| Error::Safetensors { path: path.to_path_buf(), reason };
        let map = Map::open(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let (data, metadata) = read_header(&map).map_err(broken)?;
        let map = Arc::new(map);
        // In order, so that the same file gives the same problems in the same order.
        let infos: BTreeMap<String, _> = metadata.tensors().into_iter().collect();
        for (name, info) in infos.into_iter().filter(|(name, _)| wanted(name)) {
            let dtype = match info.dtype {
                safetensors::Dtype::BF16 => Dtype::Bf16,
                safetensors::Dtype::F16 => Dtype::F16,
                safetensors::Dtype::F32 => Dtype::F32,
                other => {
                    let found = format!("{other:?}");
                    self.problems.push(Problem::WrongDtype { name, found });
                    continue;
                }
            };
            let (start, end) = info.data_offsets;
            let tensor = Tensor {
                name: name.as_str().into(),
                dtype,
                shape: info.shape.clone(),
                map: Arc::clone(&map),
                range: data + start..data + end,
            };
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }
}

/// Where the tensors' bytes begin in a safetensors file, and what its header says of them; their ranges lie within the
/// file. `SafeTensors::read_metadata` does the same, but adds up sizes from the header without regard to overflow.
fn read_header(file: &[u8]) -> Result<(usize, Metadata), String> {
    /// As much as safetensors' own readers take.
    const MAX_HEADER: u64 = 100_000_000;
    let Some((length, rest)) = file.split_first_chunk() else {
        return Err(format!("it has {} bytes, too few for the length of a header", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!("it begins with a header length of {length}: not a safetensors file"));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(format!("its header has {length} bytes, of which {} are there", rest.len()));
    };
    let metadata: Metadata = serde_json::from_slice(header).map_err(|e| format!("header: {e}"))?;
    if metadata.data_len() != data.len() {
        return Err(format!(
            "its header describes {} bytes of tensors, the file has {}",
            metadata.data_len(),
            data.len()
        ));
    }
    Ok((file.len() - data.len(), metadata))
}

fn is_about(problem: &Problem, tensor: &str) -> bool {
    matches!(problem, Problem::WrongDtype { name, .. } if name == tensor)
}

/// Reads the text of a `model.safetensors.index.json`: which file holds which tensor.
///
/// # Errors
/// Says what is wrong with the text; a file name that would leave the directory is refused.
pub fn parse_index(text: &str) -> Result<BTreeMap<String, String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_str(text).map_err(|e| e.to_string())?;
    for file in index.weight_map.values() {
        if Path::new(file).file_name().is_none_or(|name| name != file.as_str()) {
            return Err(format!("weight_map: {file:?} is not the name of a file beside it"));
        }
    }
    Ok(index.weight_map)
}
