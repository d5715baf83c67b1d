//! The pure-Rust engine.

use std::sync::Arc;

use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;

use super::value::{Inner, wrong_type};
use super::{Source, Value};
use crate::error::{Error, Result};

const ENGINE: &str = "rten";

/// rten with a pool of threads of its own.
#[derive(Debug, Clone)]
pub struct Rten {
    threads: usize,
    pool: Arc<ThreadPool>,
}

impl Rten {
    /// With this many threads.
    pub fn new(threads: usize) -> Self {
        Self { threads, pool: Arc::new(ThreadPool::with_num_threads(threads)) }
    }

    pub fn describe(&self) -> String {
        format!("rten, CPU, {} thread(s)", self.threads)
    }

    pub fn load(&self, source: Source<'_>) -> Result<Graph> {
        let options = ModelOptions::with_all_ops();
        let model = match source {
            Source::File(path) => options.load_file(path),
            Source::Bytes(bytes) => options.load(bytes.to_vec()),
        };
        let model = model.map_err(|error| failed(&source.name(), &error))?;
        Ok(Graph { name: source.name(), model, pool: Arc::clone(&self.pool) })
    }
}

/// A loaded model.
pub struct Graph {
    name: String,
    model: Model,
    pool: Arc<ThreadPool>,
}

impl super::Graph for Graph {
    fn run(
        &self,
        inputs: Vec<(&str, Value)>,
        outputs: &[&str],
        kept: &[&str],
    ) -> Result<Vec<Value>> {
        let node =
            |name: &str| self.model.node_id(name).map_err(|error| failed(&self.name, &error));
        // The values live here while the engine looks at them.
        let inputs: Vec<(NodeId, Arc<rten::Value>)> = inputs
            .into_iter()
            .map(|(name, value)| Ok((node(name)?, native(value)?)))
            .collect::<Result<_>>()?;
        let views = inputs.iter().map(|(id, value)| (*id, value.as_view().into())).collect();
        let wanted: Vec<NodeId> =
            outputs.iter().chain(kept).map(|name| node(name)).collect::<Result<_>>()?;
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.pool)));
        let values = self
            .model
            .run(views, &wanted, Some(options))
            .map_err(|error| failed(&self.name, &error))?;
        Ok(values.into_iter().map(|value| Value(Inner::Rten(Arc::new(value)))).collect())
    }

    fn keeps_to_shapes(&self) -> bool {
        false
    }
}

/// The value in rten's types, which keep whole numbers in 32 bits.
fn native(value: Value) -> Result<Arc<rten::Value>> {
    let value: rten::Value = match value.0 {
        Inner::F32 { shape, data } => Tensor::from_data(shape.as_slice(), data).into(),
        Inner::I64 { shape, data } => {
            let narrow: std::result::Result<Vec<i32>, _> =
                data.iter().map(|&n| i32::try_from(n)).collect();
            let narrow = narrow.map_err(|_| Error::Value {
                reason: "it holds whole numbers of more than 32 bits, which rten has not".into(),
            })?;
            Tensor::from_data(shape.as_slice(), narrow).into()
        }
        Inner::Rten(value) => return Ok(value),
        Inner::OnnxRuntime(_) => {
            return Err(Error::Value { reason: "it belongs to ONNX Runtime".into() });
        }
    };
    Ok(Arc::new(value))
}

/// Shape and elements of a value that an engine gave.
pub fn to_f32(value: Arc<rten::Value>) -> Result<(Vec<usize>, Vec<f32>)> {
    let Some(tensor) = Arc::unwrap_or_clone(value).into_tensor::<f32>() else {
        return Err(wrong_type("f32"));
    };
    Ok((tensor.shape().to_vec(), tensor.into_data()))
}

/// Likewise for whole numbers.
pub fn to_i64(value: &rten::Value) -> Result<(Vec<usize>, Vec<i64>)> {
    let Some(tensor) = value.as_tensor_view::<i32>() else { return Err(wrong_type("i64")) };
    Ok((tensor.shape().to_vec(), tensor.to_vec().into_iter().map(i64::from).collect()))
}

fn failed(graph: &str, error: &dyn std::error::Error) -> Error {
    Error::Graph { engine: ENGINE, graph: graph.into(), reason: error.to_string() }
}
