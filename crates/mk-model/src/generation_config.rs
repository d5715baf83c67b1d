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
        let file_is = |reason: String| {
            vec![Problem::BadField { field: "generation_config.json".into(), reason }]
        };
        let fields: Value =
            serde_json::from_str(text).map_err(|e| file_is(format!("not JSON: {e}")))?;
        if !fields.is_object() {
            return Err(file_is("not a JSON object".into()));
        }
        let mut reader = Reader { fields: &fields, problems: Vec::new() };
        let config = Self {
            eos_token_ids: reader.read("eos_token_id", token_ids).unwrap_or_default(),
            do_sample: reader.read("do_sample", boolean).unwrap_or(false),
            temperature: reader.read("temperature", number),
            top_k: reader.read("top_k", whole),
            top_p: reader.read("top_p", number),
            min_p: reader.read("min_p", number),
            repetition_penalty: reader.read("repetition_penalty", number),
        };
        if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
    }
}

struct Reader<'a> {
    fields: &'a Value,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// The field, if it is there and `parse` takes it; what `parse` says against it is noted.
    fn read<T>(&mut self, field: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.fields.get(field).filter(|value| !value.is_null())?;
        let note = |reason| Problem::BadField {
            field: format!("generation_config.json: {field}"),
            reason,
        };
        parse(value).map_err(|reason| self.problems.push(note(reason))).ok()
    }
}

fn boolean(value: &Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("expected true or false, found {value}"))
}

fn number(value: &Value) -> Result<f32, String> {
    let number = value.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
    number.ok_or_else(|| format!("expected a number, found {value}"))
}

/// A number of things; some writers give all numbers a decimal point.
fn whole(value: &Value) -> Result<usize, String> {
    let float = || value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..1e9).contains(n));
    let whole = value.as_u64().or_else(|| float().map(|n| n as u64));
    whole
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| format!("expected a whole number, found {value}"))
}
