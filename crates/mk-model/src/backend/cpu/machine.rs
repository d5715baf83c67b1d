//! The processor as the backend uses it: the kernels of an instruction set, the threads, and what is rounded.

use rayon::prelude::*;

use super::CpuOptions;
use super::weights::Matrix;
use crate::backend::Precision;
use crate::error::{Error, Result};
use crate::raw::Isa;
use crate::raw::kernels::{Kernels, Panel};

/// Weight rows of one task when there are several tokens: as many as fit a core's cache beside the activations.
const TASK_ROWS: usize = 64;

pub(crate) struct Machine {
    pub(super) kernels: Kernels,
    pub(super) precision: Precision,
    threads: rayon::ThreadPool,
}

impl Machine {
    /// # Errors
    /// [`Error::Unavailable`] for an instruction set the machine lacks, [`Error::Threads`].
    pub(crate) fn new(precision: Precision, options: CpuOptions) -> Result<Self> {
        let isa = options.isa.unwrap_or_else(|| Isa::available()[0]);
        let kernels = Kernels::of(isa).ok_or_else(|| Error::Unavailable {
            what: isa.to_string(),
            reason: "this machine does not have the instruction set".into(),
        })?;
        // Zero means one thread a core to rayon.
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads.unwrap_or(0))
            .thread_name(|i| format!("mk-cpu-{i}"))
            .build()
            .map_err(|e| Error::Threads(e.to_string()))?;
        Ok(Self { kernels, precision, threads })
    }

    pub(super) fn describe(&self) -> String {
        let (threads, isa) = (self.threads.current_num_threads(), self.kernels.isa());
        format!("CPU, {threads} threads, {isa}, {}", self.precision)
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// Runs `work` on the threads.
    pub(crate) fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    /// Packs `features` x `tokens` numbers for a matrix product, rounded as the precision asks.
    pub(super) fn pack(
        &self,
        features: usize,
        tokens: usize,
        value: impl Fn(usize, usize) -> f32 + Sync,
    ) -> Panel {
        let format = self.kernels.panel_format(self.precision == Precision::Bf16);
        self.kernels.pack(format, features, tokens, value)
    }

    /// The product of the matrices, one above the other, with `input`, in parallel over rows.
    pub(super) fn matmul(
        &self,
        stack: &[&Matrix],
        input: &Panel,
        out: &mut [f32],
        accumulate: bool,
    ) {
        let total: usize = stack.iter().map(|m| m.rows).sum();
        let stride = out.len() / total;
        let rows = self.task_rows(total, stride);
        out.par_chunks_mut(rows * stride).enumerate().for_each(|(task, mut out)| {
            let (mut first, end) = (task * rows, (task * rows + rows).min(total));
            let mut top = 0;
            for matrix in stack {
                let bottom = top + matrix.rows;
                if first < bottom && first < end {
                    let count = end.min(bottom) - first;
                    let (part, rest) = std::mem::take(&mut out).split_at_mut(count * stride);
                    self.kernels.matmul(matrix.rows(first - top, count), input, part, accumulate);
                    (first, out) = (first + count, rest);
                }
                top = bottom;
            }
        });
    }

    /// Appends to `out` the product of `matrix` with rows `[rows][cols]` of numbers: `[rows][matrix.rows]`.
    pub(crate) fn product(&self, matrix: &Matrix, rows: &[f32], out: &mut Vec<f32>) {
        let (height, width) = (matrix.rows, matrix.cols);
        let tokens = rows.len() / width;
        let input = self.pack(width, tokens, |f, t| rows[t * width + f]);
        let start = out.len();
        out.resize(start + tokens * height, 0.0);
        if tokens == 1 {
            self.matmul(&[matrix], &input, &mut out[start..], false);
            return;
        }
        let stride = Kernels::stride(tokens);
        let mut columns = vec![0.0; height * stride];
        self.matmul(&[matrix], &input, &mut columns, false);
        out[start..].par_chunks_exact_mut(height).enumerate().for_each(|(token, row)| {
            for (feature, number) in row.iter_mut().enumerate() {
                *number = columns[feature * stride + token];
            }
        });
    }

    /// Rows of one task: a few tasks a thread for a single token, whose product is bound by memory; for several, rows
    /// that stay in a core's cache.
    pub(super) fn task_rows(&self, total: usize, tokens: usize) -> usize {
        let share = total.div_ceil(4 * self.threads.current_num_threads()).next_multiple_of(8);
        if tokens == 1 { share } else { share.min(TASK_ROWS) }
    }
}
