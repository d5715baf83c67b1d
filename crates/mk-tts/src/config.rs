//! `config.json` and `generation_config.json` of a Qwen3-TTS checkpoint: dimensions, ids, names.
//!
//! Names and meanings are those of qwen_tts' `core/models/configuration_qwen3_tts.py`. Every id is taken from the file;
//! the defaults in that code belong to another model.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use mk_model::{Config, Problem, Sampling};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What a checkpoint was trained to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelType {
    /// Clones voices from recordings; has none of its own.
    Base,
    /// Has voices of its own, by name.
    CustomVoice,
    /// Makes a voice to a description.
    VoiceDesign,
}

impl fmt::Display for ModelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::CustomVoice => "custom_voice",
            Self::VoiceDesign => "voice_design",
        })
    }
}

/// What `config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct TtsConfig {
    /// What the checkpoint was trained to do.
    pub model_type: ModelType,
    /// Whether the model takes an instruction beside the text: all but the smallest that know instructions at all.
    pub takes_instructions: bool,
    /// The decoder that makes the first code of a frame; its vocabulary is the codec's.
    pub talker: Config,
    /// The decoder that makes the other codes of a frame.
    pub predictor: Config,
    /// Codes of a frame.
    pub code_groups: usize,
    /// Rows of the text embedding.
    pub text_vocab_size: usize,
    /// Width of the text embedding.
    pub text_hidden_size: usize,
    /// Ids of the text vocabulary that the prompt is built of.
    pub text_ids: TextIds,
    /// Ids of the codec vocabulary that the prompt is built of.
    pub codec_ids: CodecIds,
    /// Languages and dialects by name, lower-case, with their codec ids.
    pub languages: BTreeMap<String, u32>,
    /// The model's own voices by name, lower-case.
    pub speakers: BTreeMap<String, Speaker>,
}

/// Ids of the text vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextIds {
    /// Text that is nothing: what the talker hears after the end of the text.
    pub pad: u32,
    /// Beginning of the text.
    pub bos: u32,
    /// End of the text.
    pub eos: u32,
}

/// Ids of the codec vocabulary beyond the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecIds {
    /// No code.
    pub pad: u32,
    /// Beginning of the frames.
    pub bos: u32,
    /// End of the frames.
    pub eos: u32,
    /// A language follows.
    pub think: u32,
    /// No language follows.
    pub nothink: u32,
    /// Opens the language.
    pub think_bos: u32,
    /// Closes the language.
    pub think_eos: u32,
}

/// One of the model's own voices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Speaker {
    /// Its codec id.
    pub id: u32,
    /// The dialect it speaks where the language is Chinese or left open.
    pub dialect: Option<String>,
}

impl TtsConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// A file that cannot be read, and everything that is wrong with what it says, at once.
    pub fn open(dir: &Path) -> Result<Self> {
        let text = read_text(&dir.join("config.json"))?;
        Self::from_json(&text).map_err(|problems| checkpoint(dir, problems))
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// Everything that is missing, out of range or not supported.
    pub fn from_json(text: &str) -> Result<Self, Vec<Problem>> {
        let file: File = serde_json::from_str(text).map_err(|e| {
            vec![Problem::BadField { field: "config.json".into(), reason: e.to_string() }]
        })?;
        let mut problems = Vec::new();
        only(&mut problems, "model_type", &file.model_type, "qwen3_tts");
        only(&mut problems, "tokenizer_type", &file.tokenizer_type, "qwen3_tts_tokenizer_12hz");
        let model_type = match file.tts_model_type.as_str() {
            "base" => ModelType::Base,
            "custom_voice" => ModelType::CustomVoice,
            "voice_design" => ModelType::VoiceDesign,
            other => {
                problems.push(Problem::Unsupported {
                    field: "tts_model_type".into(),
                    found: other.into(),
                    supported: "base, custom_voice and voice_design".into(),
                });
                ModelType::Base
            }
        };
        let ids: Option<TalkerIds> =
            parse("talker_config", Value::Object(file.talker_config.clone()), &mut problems);
        let predictor = match file.talker_config.get("code_predictor_config") {
            Some(Value::Object(fields)) => fields.clone(),
            _ => {
                let field = "talker_config.code_predictor_config".into();
                problems.push(Problem::BadField { field, reason: "is missing".into() });
                Map::new()
            }
        };
        let talker = decoder("talker_config", file.talker_config, &mut problems);
        let predictor = decoder("talker_config.code_predictor_config", predictor, &mut problems);
        let (Some(ids), Some(talker), Some(predictor)) = (ids, talker, predictor) else {
            return Err(problems);
        };

        let lower = |name: &String| name.to_lowercase();
        let config = Self {
            model_type,
            takes_instructions: match model_type {
                ModelType::Base => false,
                // As qwen_tts decides it, which drops the instruction of the small model.
                ModelType::CustomVoice => !"0b6".contains(&file.tts_model_size),
                ModelType::VoiceDesign => true,
            },
            code_groups: ids.num_code_groups,
            text_vocab_size: ids.text_vocab_size,
            text_hidden_size: ids.text_hidden_size,
            text_ids: TextIds {
                pad: file.tts_pad_token_id,
                bos: file.tts_bos_token_id,
                eos: file.tts_eos_token_id,
            },
            codec_ids: CodecIds {
                pad: ids.codec_pad_id,
                bos: ids.codec_bos_id,
                eos: ids.codec_eos_token_id,
                think: ids.codec_think_id,
                nothink: ids.codec_nothink_id,
                think_bos: ids.codec_think_bos_id,
                think_eos: ids.codec_think_eos_id,
            },
            speakers: ids
                .spk_id
                .iter()
                .map(|(name, id)| {
                    let dialect = ids.spk_is_dialect.get(name).and_then(Value::as_str);
                    (lower(name), Speaker { id: *id, dialect: dialect.map(str::to_lowercase) })
                })
                .collect(),
            languages: ids.codec_language_id.iter().map(|(n, id)| (lower(n), *id)).collect(),
            talker,
            predictor,
        };
        problems.extend(config.contradictions());
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// Languages a caller may ask for, without the dialects, which come with their speakers; "auto" is always one.
    pub fn language_names(&self) -> impl Iterator<Item = &str> {
        let named = self.languages.keys().map(String::as_str);
        std::iter::once("auto").chain(named.filter(|name| !name.contains("dialect")))
    }

    /// Ids that never begin a frame: all that are no codes, but for the end.
    pub fn suppressed(&self) -> Vec<u32> {
        let vocab = self.talker.vocab_size;
        // qwen_tts suppresses the last 1,024 ids, whatever the number of codes.
        let first = vocab.saturating_sub(1024) as u32;
        (first..vocab as u32).filter(|id| *id != self.codec_ids.eos).collect()
    }

    fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut bad = |field: String, reason: String| {
            problems.push(Problem::BadField { field, reason });
        };
        if self.code_groups < 2 {
            let reason = format!("expected at least 2, found {}", self.code_groups);
            bad("talker_config.num_code_groups".into(), reason);
        }
        if self.predictor.max_position_embeddings <= self.code_groups {
            let reason = format!("a frame of {} codes does not fit", self.code_groups);
            bad("talker_config.code_predictor_config.max_position_embeddings".into(), reason);
        }
        for (name, id) in [
            ("tts_pad_token_id", self.text_ids.pad),
            ("tts_bos_token_id", self.text_ids.bos),
            ("tts_eos_token_id", self.text_ids.eos),
        ] {
            if id as usize >= self.text_vocab_size {
                let reason = format!("{id} is not in the vocabulary of {}", self.text_vocab_size);
                bad(name.into(), reason);
            }
        }
        let ids = &self.codec_ids;
        let named = [
            ("codec_pad_id".into(), ids.pad),
            ("codec_bos_id".into(), ids.bos),
            ("codec_eos_token_id".into(), ids.eos),
            ("codec_think_id".into(), ids.think),
            ("codec_nothink_id".into(), ids.nothink),
            ("codec_think_bos_id".into(), ids.think_bos),
            ("codec_think_eos_id".into(), ids.think_eos),
        ];
        let languages =
            self.languages.iter().map(|(name, id)| (format!("codec_language_id.{name}"), *id));
        let speakers = self.speakers.iter().map(|(name, s)| (format!("spk_id.{name}"), s.id));
        for (name, id) in named.into_iter().chain(languages).chain(speakers) {
            let vocab = self.talker.vocab_size;
            if id as usize >= vocab {
                let reason = format!("{id} is not in the vocabulary of {vocab}");
                bad(format!("talker_config.{name}"), reason);
            }
        }
        for (name, speaker) in &self.speakers {
            if let Some(dialect) = &speaker.dialect
                && !self.languages.contains_key(dialect)
            {
                let reason = format!("{dialect} is not in codec_language_id");
                bad(format!("talker_config.spk_is_dialect.{name}"), reason);
            }
        }
        if self.talker.vocab_size < self.predictor.vocab_size {
            let reason = format!(
                "{} is less than the {} codes of the predictor",
                self.talker.vocab_size, self.predictor.vocab_size
            );
            bad("talker_config.vocab_size".into(), reason);
        }
        problems
    }
}

/// The top of the file.
#[derive(Deserialize)]
struct File {
    model_type: String,
    tokenizer_type: String,
    tts_model_type: String,
    #[serde(default)]
    tts_model_size: String,
    tts_pad_token_id: u32,
    tts_bos_token_id: u32,
    tts_eos_token_id: u32,
    talker_config: Map<String, Value>,
}

/// What `talker_config` says beyond a decoder's dimensions.
#[derive(Deserialize)]
struct TalkerIds {
    num_code_groups: usize,
    text_vocab_size: usize,
    text_hidden_size: usize,
    codec_pad_id: u32,
    codec_bos_id: u32,
    codec_eos_token_id: u32,
    codec_think_id: u32,
    codec_nothink_id: u32,
    codec_think_bos_id: u32,
    codec_think_eos_id: u32,
    codec_language_id: BTreeMap<String, u32>,
    #[serde(default)]
    spk_id: BTreeMap<String, u32>,
    /// `false`, or the name of a dialect.
    #[serde(default)]
    spk_is_dialect: BTreeMap<String, Value>,
}

/// The dimensions of a decoder inside the file. It is a Qwen3 under other names: its M-RoPE turns all sections by the
/// same position (`get_rope_index`), which is the plain rotation.
fn decoder(
    place: &str,
    mut fields: Map<String, Value>,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    fields.insert("model_type".into(), "qwen3".into());
    fields.insert("tie_word_embeddings".into(), false.into());
    // Its end is an id of the codec, which the frame loop looks for.
    fields.remove("eos_token_id");
    match Config::from_json(&Value::Object(fields).to_string()) {
        Ok(config) => Some(config),
        Err(found) => {
            problems.extend(found.into_iter().map(|problem| within(place, problem)));
            None
        }
    }
}

/// The problem, with the field named from the top of the file.
fn within(place: &str, problem: Problem) -> Problem {
    match problem {
        Problem::BadField { field, reason } => {
            Problem::BadField { field: format!("{place}.{field}"), reason }
        }
        Problem::Unsupported { field, found, supported } => {
            Problem::Unsupported { field: format!("{place}.{field}"), found, supported }
        }
        other => other,
    }
}

fn only(problems: &mut Vec<Problem>, field: &str, found: &str, supported: &str) {
    if found != supported {
        problems.push(Problem::Unsupported {
            field: field.into(),
            found: format!("{found:?}"),
            supported: format!("{supported:?}"),
        });
    }
}

fn parse<T: for<'a> Deserialize<'a>>(
    field: &str,
    value: Value,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let bad =
        |e: serde_json::Error| Problem::BadField { field: field.into(), reason: e.to_string() };
    serde_json::from_value(value).map_err(|e| problems.push(bad(e))).ok()
}

/// How codes are chosen: the talker's and the code predictor's sampling.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechSampling {
    /// For the first code of a frame.
    pub talker: Sampling,
    /// For the other codes.
    pub predictor: Sampling,
}

impl SpeechSampling {
    /// The likeliest code, always. Real models then fall silent or drone: it is for comparing.
    pub fn greedy() -> Self {
        let talker = Sampling { repetition_penalty: 1.05, ..Sampling::default() };
        Self { talker, predictor: Sampling::default() }
    }

    /// The same with another seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.talker.seed = seed;
        // Another key, since both count their draws from zero.
        self.predictor.seed = seed ^ 0x9e37_79b9_7f4a_7c15;
        self
    }

    /// What the checkpoint's makers suggest: `generation_config.json` in `dir`, and qwen_tts' own defaults
    /// (`inference/qwen3_tts_model.py`) for what it leaves out.
    ///
    /// # Errors
    /// A file that is there but not as it should be.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("generation_config.json");
        if !path.exists() {
            return Self::from_json("{}").map_err(|problem| checkpoint(dir, vec![problem]));
        }
        Self::from_json(&read_text(&path)?).map_err(|problem| checkpoint(dir, vec![problem]))
    }

    /// Reads the text of a `generation_config.json`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(text: &str) -> Result<Self, Problem> {
        let bad = |e: serde_json::Error| Problem::BadField {
            field: "generation_config.json".into(),
            reason: e.to_string(),
        };
        let file: GenerationFile = serde_json::from_str(text).map_err(bad)?;
        let sampling = |sample: Option<bool>,
                        temperature: Option<f32>,
                        top_k: Option<usize>,
                        top_p: Option<f32>| {
            if !sample.unwrap_or(true) {
                return Sampling::default();
            }
            Sampling {
                temperature: temperature.unwrap_or(0.9),
                top_k: top_k.unwrap_or(50),
                top_p: top_p.unwrap_or(1.0),
                ..Sampling::default()
            }
        };
        let talker = sampling(file.do_sample, file.temperature, file.top_k, file.top_p);
        let predictor = sampling(
            file.subtalker_dosample,
            file.subtalker_temperature,
            file.subtalker_top_k,
            file.subtalker_top_p,
        );
        let repetition_penalty = file.repetition_penalty.unwrap_or(1.05);
        Ok(Self { talker: Sampling { repetition_penalty, ..talker }, predictor }.with_seed(0))
    }
}

#[derive(Deserialize)]
struct GenerationFile {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    repetition_penalty: Option<f32>,
    subtalker_dosample: Option<bool>,
    subtalker_temperature: Option<f32>,
    subtalker_top_k: Option<usize>,
    subtalker_top_p: Option<f32>,
}

/// The error that reports all `problems` of the checkpoint in `dir`.
pub(crate) fn checkpoint(dir: &Path, problems: Vec<Problem>) -> Error {
    mk_model::Error::Checkpoint { path: dir.into(), problems }.into()
}

pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })
}
