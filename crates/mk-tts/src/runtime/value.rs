//! Tensors on their way into a graph and out of it.

use std::sync::Arc;

use crate::error::{Error, Result};

/// A tensor: in memory, or in whatever form and place an engine gave it. Cloning one that an engine gave copies nothing.
#[derive(Debug, Clone)]
pub struct Value(pub(super) Inner);

#[derive(Debug, Clone)]
pub(super) enum Inner {
    F32 {
        shape: Vec<usize>,
        data: Vec<f32>,
    },
    I64 {
        shape: Vec<usize>,
        data: Vec<i64>,
    },
    /// Engines do not write to their inputs, so that a value may go into several runs.
    OnnxRuntime(Arc<ort::value::DynTensor>),
    Rten(Arc<rten::Value>),
}

impl Value {
    /// A tensor of f32 in memory, row-major.
    ///
    /// # Errors
    /// `data` of another length than `shape` asks for.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Result<Self> {
        check(shape, data.len())?;
        Ok(Self(Inner::F32 { shape: shape.into(), data }))
    }

    /// A tensor of i64 in memory, row-major.
    ///
    /// # Errors
    /// `data` of another length than `shape` asks for.
    pub fn i64(shape: &[usize], data: Vec<i64>) -> Result<Self> {
        check(shape, data.len())?;
        Ok(Self(Inner::I64 { shape: shape.into(), data }))
    }

    /// Shape and elements of a tensor of f32, row-major.
    ///
    /// # Errors
    /// It holds something else, or its device does not give it back.
    pub fn into_f32(self) -> Result<(Vec<usize>, Vec<f32>)> {
        match self.0 {
            Inner::F32 { shape, data } => Ok((shape, data)),
            Inner::I64 { .. } => Err(wrong_type("f32")),
            Inner::OnnxRuntime(value) => super::onnxruntime::to_host(&value),
            Inner::Rten(value) => super::rten::to_f32(value),
        }
    }

    /// Shape and elements of a tensor of i64, row-major.
    ///
    /// # Errors
    /// It holds something else, or its device does not give it back.
    pub fn into_i64(self) -> Result<(Vec<usize>, Vec<i64>)> {
        match self.0 {
            Inner::I64 { shape, data } => Ok((shape, data)),
            Inner::F32 { .. } => Err(wrong_type("i64")),
            Inner::OnnxRuntime(value) => super::onnxruntime::to_host(&value),
            Inner::Rten(value) => super::rten::to_i64(&value),
        }
    }
}

pub(super) fn wrong_type(wanted: &str) -> Error {
    Error::Value { reason: format!("it does not hold {wanted}") }
}

fn check(shape: &[usize], found: usize) -> Result<()> {
    let expected = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
    if expected == Some(found) {
        return Ok(());
    }
    Err(Error::Value { reason: format!("{found} elements do not fill the shape {shape:?}") })
}
