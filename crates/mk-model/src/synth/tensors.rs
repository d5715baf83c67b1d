//! Random tensors in safetensors files: each number a function of the seed, the tensor's name and its place in it.
//!
//! Other synthetic checkpoints are built of these too.

use std::io::{self, Write};
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::file;
use crate::checkpoint::Dtype;
use crate::error::Result;
use crate::rng::philox;

/// Numbers that are made in one go, to be written in one go.
const CHUNK: usize = 1 << 22;

/// One tensor, row-major; norms are one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// The name in the file.
    pub name: String,
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// What its numbers are like.
    pub kind: Kind,
}

/// How the numbers of a tensor are spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Normal about zero.
    Linear {
        /// The standard deviation.
        std: f32,
    },
    /// Likewise, times a factor from 0.5 to 1.5 for each row.
    Rows {
        /// The standard deviation of a row whose factor is 1.
        std: f32,
    },
    /// As [`Kind::Linear`], but for one row, which is larger.
    OneLarger {
        /// The standard deviation of the others.
        std: f32,
        /// Which row.
        row: usize,
        /// How many times as large it is.
        gain: f32,
    },
    /// Normal about this mean, with a standard deviation of a seventh of it: always positive.
    Norm {
        /// The mean.
        mean: f32,
    },
    /// Evenly from `low` up to `high`.
    Uniform {
        /// The smallest.
        low: f32,
        /// Above the largest, or equal to it where all are the same.
        high: f32,
    },
}

impl Tensor {
    /// Bytes of its numbers in a file that stores them as `dtype`.
    pub fn bytes(&self, dtype: Dtype) -> u64 {
        (self.shape.iter().product::<usize>() * dtype.size()) as u64
    }
}

/// Writes `dir/name` with these tensors in this order, all stored as `dtype`.
///
/// # Errors
/// Failures to write.
pub fn write(dir: &Path, name: &str, tensors: &[Tensor], dtype: Dtype, seed: u64) -> Result<()> {
    file::write(dir, name, |out| {
        out.write_all(&header(tensors, dtype))?;
        tensors.iter().try_for_each(|tensor| write_tensor(seed, dtype, tensor, out))
    })
}

/// Bytes of the file that [`write()`] makes.
pub fn file_size(tensors: &[Tensor], dtype: Dtype) -> u64 {
    let numbers: u64 = tensors.iter().map(|tensor| tensor.bytes(dtype)).sum();
    header(tensors, dtype).len() as u64 + numbers
}

/// The length of the JSON text, and the text, padded such that the tensors' bytes start at a multiple of 8.
fn header(tensors: &[Tensor], dtype: Dtype) -> Vec<u8> {
    let dtype_name = match dtype {
        Dtype::Bf16 => "BF16",
        Dtype::F16 => "F16",
        Dtype::F32 => "F32",
    };
    let mut entries = Map::new();
    entries.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes(dtype);
        let entry =
            json!({ "dtype": dtype_name, "shape": tensor.shape, "data_offsets": [offset, end] });
        entries.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}

fn write_tensor(seed: u64, dtype: Dtype, tensor: &Tensor, out: &mut impl Write) -> io::Result<()> {
    let columns = tensor.shape.last().copied().unwrap_or(1);
    let rows = tensor.shape.iter().product::<usize>() / columns;
    let width = dtype.size();
    let rows_per_chunk = (CHUNK / columns).max(1);
    let mut buffer = Vec::new();
    for first in (0..rows).step_by(rows_per_chunk) {
        let count = rows_per_chunk.min(rows - first);
        buffer.resize(count * columns * width, 0);
        let stream = stream(&tensor.name);
        buffer.par_chunks_mut(columns * width).enumerate().for_each(|(i, bytes)| {
            let row = Row { seed, stream, row: (first + i) as u64 };
            match dtype {
                Dtype::Bf16 => row.fill(tensor.kind, bytes, |x| bf16::from_f32(x).to_le_bytes()),
                Dtype::F16 => row.fill(tensor.kind, bytes, |x| f16::from_f32(x).to_le_bytes()),
                Dtype::F32 => row.fill(tensor.kind, bytes, f32::to_le_bytes),
            }
        });
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// FNV-1a of a tensor's name. Tensors draw from streams of their own, so that their numbers do not depend on which
/// others there are.
fn stream(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// One row of a tensor: the counters from 2^32 times its number on, in the tensor's stream.
struct Row {
    seed: u64,
    stream: u64,
    row: u64,
}

impl Row {
    fn words(&self, block: u64) -> [u32; 4] {
        philox(self.seed, u128::from(self.stream) << 64 | u128::from(self.row << 32 | block))
    }

    fn fill<const N: usize>(&self, kind: Kind, bytes: &mut [u8], store: impl Fn(f32) -> [u8; N]) {
        let normal =
            |mean: f32, std: f32| move |word: u32| mean + centred(word) * (std / BYTES_STD);
        match kind {
            Kind::Linear { std } => self.draw(bytes, store, normal(0.0, std)),
            Kind::Rows { std } => {
                // The last counter of the row, which no number uses: a row is shorter.
                let factor = 0.5 + unit(self.words(u64::from(u32::MAX))[0]);
                self.draw(bytes, store, normal(0.0, std * factor));
            }
            Kind::OneLarger { std, row, gain } => {
                let factor = if self.row == row as u64 { gain } else { 1.0 };
                self.draw(bytes, store, normal(0.0, std * factor));
            }
            Kind::Norm { mean } => self.draw(bytes, store, normal(mean, mean / 7.0)),
            Kind::Uniform { low, high } => {
                self.draw(bytes, store, |word| low + unit(word) * (high - low));
            }
        }
    }

    fn draw<const N: usize>(
        &self,
        bytes: &mut [u8],
        store: impl Fn(f32) -> [u8; N],
        number: impl Fn(u32) -> f32,
    ) {
        for (block, bytes) in bytes.chunks_mut(4 * N).enumerate() {
            let words = self.words(block as u64);
            for (word, bytes) in words.into_iter().zip(bytes.chunks_exact_mut(N)) {
                bytes.copy_from_slice(&store(number(word)));
            }
        }
    }
}

/// A number in [0, 1).
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 / (1 << 24) as f32
}

/// The sum of a word's four bytes, less its mean: an integer, normal to the eye, within 3.45 standard deviations of
/// [`BYTES_STD`]. Nothing here rounds.
fn centred(word: u32) -> f32 {
    let sum: u32 = word.to_le_bytes().into_iter().map(u32::from).sum();
    sum as f32 - 510.0
}

/// sqrt(4 (256^2 - 1) / 12), the standard deviation of the sum of four uniform bytes.
const BYTES_STD: f32 = 147.800_54;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_look_normal() {
        let draws: Vec<f32> = (0..250_000u64)
            .flat_map(|block| Row { seed: 1, stream: stream("x"), row: 0 }.words(block))
            .map(|word| centred(word) / BYTES_STD)
            .collect();
        let moment = |power: i32| {
            draws.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / draws.len() as f64
        };
        assert!(moment(1).abs() < 0.005, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.005, "{}", moment(2));
        // A normal has 3; the sum of four uniforms has 3 - 6 / (5 * 4).
        assert!((moment(4) - 2.7).abs() < 0.03, "{}", moment(4));
    }

    /// Mean and root mean square of a row.
    fn moments(kind: Kind, row: u64) -> (f32, f32) {
        let mut bytes = vec![0; 4 * 4096];
        Row { seed: 1, stream: stream("x"), row }.fill(kind, &mut bytes, f32::to_le_bytes);
        let numbers =
            || bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let square: f32 = numbers().map(|x| x * x).sum();
        (numbers().sum::<f32>() / 4096.0, (square / 4096.0).sqrt())
    }

    #[test]
    fn one_row_is_larger() {
        let kind = Kind::OneLarger { std: 0.5, row: 2, gain: 4.0 };
        assert!((moments(kind, 1).1 - 0.5).abs() < 0.03);
        assert!((moments(kind, 2).1 - 2.0).abs() < 0.1);
    }

    #[test]
    fn uniform_numbers_fill_their_range() {
        let (mean, square) = moments(Kind::Uniform { low: 1.0, high: 3.0 }, 0);
        assert!((mean - 2.0).abs() < 0.05, "{mean}");
        // The variance is a twelfth of the squared range.
        assert!((square * square - mean * mean - 4.0 / 12.0).abs() < 0.05, "{square}");
        assert_eq!(moments(Kind::Uniform { low: 1.0, high: 1.0 }, 0), (1.0, 1.0));
    }
}
