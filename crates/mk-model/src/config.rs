//! `config.json`: the dimensions of a dense Qwen3, and a clear no to what we do not do.

use serde_json::{Map, Value};

use crate::error::Problem;

/// Dimensions and constants of one decoder, named as `config.json` names them.
///
/// The Qwen3 decoder layer, and what each field means in it, is that of transformers'
/// `models/qwen3/modeling_qwen3.py`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the SwiGLU feed-forward.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads (GQA); divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even. Independent of `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Rows of the embedding and of the output head.
    pub vocab_size: usize,
    /// Longest sequence the model was made for, in positions.
    pub max_position_embeddings: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f32,
    /// Whether the output head is the embedding. `None` where the file does not say: then the head is tied unless
    /// the checkpoint holds one.
    pub tie_word_embeddings: Option<bool>,
    /// `eos_token_id` of `config.json`; `generation_config.json` goes before it.
    pub eos_token_ids: Vec<u32>,
}

/// More layers than any dense Qwen3 has; bounds the work that a broken file can ask for.
const MAX_LAYERS: usize = 1024;
/// Likewise for every other dimension.
const MAX_DIM: usize = 1 << 24;

impl Config {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// All problems at once: fields missing or out of range, fields that contradict each other, and features that
    /// are not supported (another architecture, sliding windows, attention bias, rope types other than `default`,
    /// quantised weights).
    pub fn from_json(text: &str) -> Result<Self, Vec<Problem>> {
        let value: Value = serde_json::from_str(text).map_err(|e| {
            vec![Problem::BadField {
                field: "config.json".into(),
                reason: format!("not JSON: {e}"),
            }]
        })?;
        let Value::Object(fields) = value else {
            return Err(vec![Problem::BadField {
                field: "config.json".into(),
                reason: "not a JSON object".into(),
            }]);
        };
        let mut reader = Reader { fields: &fields, problems: Vec::new() };
        reader.refuse_unsupported();
        let config = reader.dimensions();
        reader.check_heads(&config);
        if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
    }

    /// Width of all query heads together.
    pub fn q_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together; the values' is the same.
    pub fn kv_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Query heads that share a key-value head.
    pub fn group_size(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Weights of the layers alone: no embedding, no head, no norms.
    pub fn layer_weights(&self) -> usize {
        let attention = self.hidden_size * (2 * self.q_size() + 2 * self.kv_size());
        let feed_forward = 3 * self.hidden_size * self.intermediate_size;
        self.num_hidden_layers * (attention + feed_forward)
    }
}

struct Reader<'a> {
    fields: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn refuse_unsupported(&mut self) {
        self.only("model_type", "\"qwen3\"", |v| v == "qwen3");
        self.only("hidden_act", "\"silu\"", |v| v == "silu");
        self.only("attention_bias", "false", |v| v == false);
        self.only("use_sliding_window", "false", |v| v == false);
        self.only("layer_types", "full attention in every layer", |v| {
            v.as_array().is_some_and(|types| types.iter().all(|t| t == "full_attention"))
        });
        self.only("quantization_config", "bf16, f16 or f32 weights", |_| false);
        self.only("partial_rotary_factor", "1.0", |v| v.as_f64() == Some(1.0));
        for field in ["rope_scaling", "rope_parameters"] {
            let Some(rope) = self.get(field).cloned() else { continue };
            let Value::Object(rope) = rope else {
                self.bad(field, format!("expected an object, found {rope}"));
                continue;
            };
            // transformers 4 wrote the type as `type` before it wrote `rope_type`.
            for key in ["rope_type", "type"] {
                if let Some(kind) = rope.get(key)
                    && kind != "default"
                {
                    self.problems.push(Problem::Unsupported {
                        field: format!("{field}.{key}"),
                        found: kind.to_string(),
                        supported: "\"default\"".into(),
                    });
                }
            }
            if rope.get("partial_rotary_factor").is_some_and(|v| v.as_f64() != Some(1.0)) {
                self.problems.push(Problem::Unsupported {
                    field: format!("{field}.partial_rotary_factor"),
                    found: rope["partial_rotary_factor"].to_string(),
                    supported: "1.0".into(),
                });
            }
        }
    }

    fn dimensions(&mut self) -> Config {
        let num_attention_heads = self.dim("num_attention_heads", None, MAX_DIM);
        Config {
            hidden_size: self.dim("hidden_size", None, MAX_DIM),
            intermediate_size: self.dim("intermediate_size", None, MAX_DIM),
            num_hidden_layers: self.dim("num_hidden_layers", None, MAX_LAYERS),
            num_attention_heads,
            num_key_value_heads: self.dim(
                "num_key_value_heads",
                Some(num_attention_heads),
                MAX_DIM,
            ),
            // 128 is what transformers' Qwen3Config takes when the file leaves it out.
            head_dim: self.dim("head_dim", Some(128), MAX_DIM),
            vocab_size: self.dim("vocab_size", None, MAX_DIM),
            max_position_embeddings: self.dim("max_position_embeddings", None, MAX_DIM),
            rms_norm_eps: self.positive("rms_norm_eps").unwrap_or(1e-6),
            rope_theta: self.rope_theta(),
            tie_word_embeddings: self.tie_word_embeddings(),
            eos_token_ids: self.eos_token_ids(),
        }
    }

    /// transformers 4 writes `rope_theta` at the top; 5 writes it in `rope_parameters`, and some tools in
    /// `rope_scaling`. Where several are present they must agree.
    fn rope_theta(&mut self) -> f32 {
        let mut found: Option<f64> = None;
        for (outer, field) in [
            (None, "rope_theta"),
            (Some("rope_parameters"), "rope_parameters.rope_theta"),
            (Some("rope_scaling"), "rope_scaling.rope_theta"),
        ] {
            let value = match outer {
                None => self.get("rope_theta"),
                Some(outer) => self.get(outer).and_then(|o| o.get("rope_theta")),
            };
            let Some(value) = value.cloned() else { continue };
            let Some(theta) = value.as_f64().filter(|t| (1.0..=1e18).contains(t)) else {
                self.bad(field, format!("expected a number from 1 to 1e18, found {value}"));
                continue;
            };
            if let Some(before) = found
                && before != theta
            {
                self.bad(field, format!("is {theta}, but another place in the file says {before}"));
            }
            found = Some(theta);
        }
        let tried = ["rope_theta", "rope_parameters.rope_theta", "rope_scaling.rope_theta"];
        if found.is_none() && tried.iter().all(|field| self.is_good(field)) {
            self.bad(
                "rope_theta",
                "is missing (at the top, in rope_parameters and in rope_scaling)".into(),
            );
        }
        found.unwrap_or(f64::NAN) as f32
    }

    fn tie_word_embeddings(&mut self) -> Option<bool> {
        let value = self.get("tie_word_embeddings")?.clone();
        if !value.is_boolean() {
            self.bad("tie_word_embeddings", format!("expected true or false, found {value}"));
        }
        value.as_bool()
    }

    fn eos_token_ids(&mut self) -> Vec<u32> {
        let Some(value) = self.get("eos_token_id").cloned() else { return Vec::new() };
        token_ids(&value).unwrap_or_else(|reason| {
            self.bad("eos_token_id", reason);
            Vec::new()
        })
    }

    fn check_heads(&mut self, config: &Config) {
        let (heads, kv) = (config.num_attention_heads, config.num_key_value_heads);
        // A field that is reported already holds a stand-in, of which there is nothing more to say.
        let known = ["num_attention_heads", "num_key_value_heads"].map(|field| self.is_good(field));
        if known == [true; 2] && !heads.is_multiple_of(kv) {
            self.bad(
                "num_key_value_heads",
                format!("{kv} does not divide the {heads} attention heads"),
            );
        }
        if self.is_good("head_dim") && !config.head_dim.is_multiple_of(2) {
            self.bad(
                "head_dim",
                format!("{} is odd: rotary embedding needs pairs", config.head_dim),
            );
        }
        if heads.saturating_mul(config.head_dim) > MAX_DIM {
            let reason =
                format!("{} times {heads} attention heads is more than {MAX_DIM}", config.head_dim);
            self.bad("head_dim", reason);
        }
    }

    fn is_good(&self, field: &str) -> bool {
        let about = |p: &Problem| matches!(p, Problem::BadField { field: f, .. } if f == field);
        !self.problems.iter().any(about)
    }

    fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    fn bad(&mut self, field: &str, reason: String) {
        self.problems.push(Problem::BadField { field: field.into(), reason });
    }

    /// Reports `field` where it is present and `supported` says no to it.
    fn only(&mut self, field: &str, what: &str, supported: impl Fn(&Value) -> bool) {
        let Some(value) = self.get(field) else { return };
        if !supported(value) {
            let problem = Problem::Unsupported {
                field: field.into(),
                found: value.to_string(),
                supported: what.into(),
            };
            self.problems.push(problem);
        }
    }

    fn dim(&mut self, field: &str, default: Option<usize>, max: usize) -> usize {
        let Some(value) = self.get(field).cloned() else {
            if default.is_none() {
                self.bad(field, "is missing".into());
            }
            return default.unwrap_or(1);
        };
        match value.as_u64() {
            Some(n) if n >= 1 && n <= max as u64 => n as usize,
            _ => {
                self.bad(field, format!("expected a whole number from 1 to {max}, found {value}"));
                1
            }
        }
    }

    fn positive(&mut self, field: &str) -> Option<f32> {
        let value = self.get(field)?.clone();
        // Checked as f32, in which very small numbers are zero.
        let number = value.as_f64().map(|n| n as f32).filter(|n| *n > 0.0 && *n < 1.0);
        if number.is_none() {
            self.bad(field, format!("expected a number between 0 and 1, found {value}"));
        }
        number
    }
}

/// `eos_token_id` is one id or a list of them.
pub(crate) fn token_ids(value: &Value) -> Result<Vec<u32>, String> {
    let id = |v: &Value| {
        v.as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| format!("expected a token id, found {v}"))
    };
    match value {
        Value::Array(list) => list.iter().map(id).collect(),
        one => Ok(vec![id(one)?]),
    }
}
