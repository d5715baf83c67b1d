//! Checkpoints to take apart: written by `synth`, then edited file by file.

// Every test binary compiles this module for itself and uses its own share of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mk_model::synth::Spec;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// The smallest decoder that has everything: two layers, grouped heads, a vocabulary with text in it.
pub fn spec() -> Spec {
    Spec {
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        vocab_size: 300,
        ..Spec::tiny()
    }
}

pub fn written(spec: &Spec) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    spec.write(dir.path()).expect("a valid spec");
    dir
}

pub fn edit_json(file: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    edit(&mut value);
    fs::write(file, value.to_string()).expect("a file of ours");
}

/// A tensor as it lies in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

pub fn read_tensors(file: &Path) -> BTreeMap<String, Stored> {
    let bytes = fs::read(file).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let stored = |t: TensorView<'_>| Stored {
        dtype: t.dtype(),
        shape: t.shape().to_vec(),
        bytes: t.data().to_vec(),
    };
    file.iter().map(|(name, tensor)| (name.to_string(), stored(tensor))).collect()
}

pub fn edit_tensors(file: &Path, edit: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    let mut tensors = read_tensors(file);
    edit(&mut tensors);
    let views = tensors.iter().map(|(name, t)| {
        (name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes).expect("bytes of this shape"))
    });
    let bytes = safetensors::serialize(views, None).expect("tensors of known sizes");
    fs::write(file, bytes).expect("a file of ours");
}
