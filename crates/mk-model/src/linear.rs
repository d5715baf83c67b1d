//! A dense layer beside a decoder, such as the projections of Qwen3-TTS from one width to another.

use std::sync::Arc;

use crate::backend::Precision;
use crate::backend::cpu::{Machine, Matrix};
use crate::checkpoint::Tensor;
use crate::error::{Error, Problem, Result};

/// `y = W x + b`, computed on the CPU whatever its model runs on.
#[derive(Clone)]
pub struct Linear {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Arc<Machine>,
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// A layer of weight `[outputs, inputs]` and bias `[outputs]`.
    pub(crate) fn new(
        machine: Arc<Machine>,
        precision: Precision,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Self> {
        let &[outputs, _] = weight.shape() else {
            return Err(misfit(weight, "two dimensions"));
        };
        if let Some(bias) = bias
            && bias.shape() != [outputs]
        {
            return Err(misfit(bias, &format!("the {outputs} rows of {}", weight.name())));
        }
        let inner = Inner {
            machine,
            weight: Matrix::new(weight, precision),
            bias: bias.map(Tensor::to_f32),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Numbers of an input row.
    pub fn inputs(&self) -> usize {
        self.inner.weight.cols
    }

    /// Numbers of an output row.
    pub fn outputs(&self) -> usize {
        self.inner.weight.rows
    }

    /// Rows f32 `[rows, inputs]` to rows f32 `[rows, outputs]`. At [`Precision::Bf16`] the inputs are rounded to bf16;
    /// sums are f32.
    ///
    /// # Errors
    /// [`Error::EmbeddingShape`] if the numbers are not whole rows.
    pub fn forward(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let Inner { machine, weight, bias } = &*self.inner;
        if !rows.len().is_multiple_of(weight.cols) {
            return Err(Error::EmbeddingShape { found: rows.len(), width: weight.cols });
        }
        let mut out = Vec::new();
        if rows.is_empty() {
            return Ok(out);
        }
        // The kernel for one row adds up in many partial sums, that for several rows in one for each result, which loses
        // a digit over a few thousand inputs. In f32 that digit is wanted more than the time.
        let together = match machine.precision() {
            Precision::F32 => weight.cols,
            Precision::Bf16 => rows.len(),
        };
        machine.install(|| {
            rows.chunks(together).for_each(|rows| machine.product(weight, rows, &mut out));
        });
        if let Some(bias) = bias {
            for row in out.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        Ok(out)
    }
}

fn misfit(tensor: &Tensor, expected: &str) -> Error {
    let reason = format!("has shape {:?}, expected {expected}", tensor.shape());
    let problem = Problem::BadField { field: tensor.name().into(), reason };
    Error::Checkpoint { path: "dense layer".into(), problems: vec![problem] }
}
