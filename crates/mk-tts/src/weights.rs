//! Tensors of a checkpoint on their way into a graph, held against the shapes that the config calls for.

use mk_model::Problem;
use mk_model::checkpoint::TensorFiles;

use crate::onnx::{Edge, GraphBuilder};

/// Hands out tensors by name and remembers what was wrong with them, so that all of it can be reported at once.
///
/// After a problem it goes on with constants that hold nothing: a graph that was built on them must not be used.
pub(crate) struct Weights<'a> {
    tensors: &'a TensorFiles,
    problems: Vec<Problem>,
}

impl<'a> Weights<'a> {
    /// The tensors of a checkpoint.
    pub(crate) fn new(tensors: &'a TensorFiles) -> Self {
        Self { tensors, problems: Vec::new() }
    }

    /// What was wrong so far.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The numbers of a tensor; `None`, with the problem remembered, where it is missing, of another shape, or holds
    /// what is no number.
    pub(crate) fn get(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        let name = name.to_string();
        let problem = match self.tensors.get(&name) {
            None => Problem::MissingTensor { name, expected: shape.to_vec() },
            Some(tensor) if tensor.shape() != shape => {
                let found = tensor.shape().to_vec();
                Problem::WrongShape { name, expected: shape.to_vec(), found }
            }
            Some(tensor) => {
                let values = tensor.to_f32();
                match values.iter().position(|value| !value.is_finite()) {
                    None => return Some(values),
                    Some(index) => Problem::NotFinite { name, index },
                }
            }
        };
        self.problems.push(problem);
        None
    }

    /// The tensor as a constant of the graph.
    pub(crate) fn constant(&mut self, g: &mut GraphBuilder, name: &str, shape: &[usize]) -> Edge {
        match self.get(name, shape) {
            Some(values) => g.constant(shape, &values),
            None => Self::nothing(g),
        }
    }

    /// What stands in for a constant that there is not.
    pub(crate) fn nothing(g: &mut GraphBuilder) -> Edge {
        g.constant(&[0], &[])
    }
}
