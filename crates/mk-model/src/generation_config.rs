//! `generation_config.json`: where the model's makers say when to stop and how to sample.

use serde_json::Value;

use crate::config::token_ids;
use crate::error::Problem;

/// The fields of `generation_config.json` that we use; all of them optional in the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationConfig {
    /// Ids that end a generation.
    pub eos_token_ids: Vec<u32>,
    /// Whether to sample rather than take the most likely token.
    pub do_sample: bool,
    /// Softmax temperature.
    pub temperature: Option<f32>,
    /// Keep the `k` most likely tokens.
    pub top_k: Option<usize>,
    /// Keep the smallest set of tokens with this probability.
    pub top_p: Option<f32>,
    /// Keep tokens with at least this fraction of the most likely one's probability.
    pub min_p: Option<f32>,
    /// Divides (or, below zero, multiplies) the logits of tokens seen before.
    pub repetition_penalty: Option<f32>,
}

impl GenerationConfig {
    /// Reads the text of a `generation_config.json`.
    ///
    /// # Errors
    /// Fields of the wrong type, all at once.
    pub fn from_json(text: &str) -> Result<Self, Vec<Problem>> {
        let bad = |field: &str, reason: String| Problem::BadField {
            field: format!("generation_config.json: {field}"),
            reason,
        };
        let fields: Value =
            serde_json::from_str(text).map_err(|e| vec![bad("", format!("not JSON: {e}"))])?;
        if !fields.is_object() {
            return Err(vec![bad("", "not a JSON object".into())]);
        }
        let get = |field: &str| fields.get(field).filter(|v| !v.is_null());

        let mut problems = Vec::new();
        let mut number = |field: &str| {
            let value = get(field)?;
            let number = value.as_f64();
            if number.is_none() {
                problems.push(bad(field, format!("expected a number, found {value}")));
            }
            number.map(|n| n as f32)
        };
        let mut config = Self {
            temperature: number("temperature"),
            top_k: number("top_k").map(|k| k as usize),
            top_p: number("top_p"),
            min_p: number("min_p"),
            repetition_penalty: number("repetition_penalty"),
            do_sample: get("do_sample").and_then(Value::as_bool).unwrap_or(false),
            eos_token_ids: Vec::new(),
        };
        if let Some(value) = get("eos_token_id") {
            match token_ids(value) {
                Ok(ids) => config.eos_token_ids = ids,
                Err(reason) => problems.push(bad("eos_token_id", reason)),
            }
        }
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}
