//! What the talker is fed before the first frame, and how the text follows.
//!
//! The rows are those of `Qwen3TTSForConditionalGeneration.generate` and `generate_icl_prompt`; the specification of
//! the layouts is there only, as code. In short, with `T` the row of a token of the text and `E` that of an id of the codec:
//!
//! - instruction, if any: `T` of `<|im_start|>user\n…<|im_end|>\n`
//! - role: `T` of `<|im_start|>assistant\n`
//! - control: `T(pad) + E` of the language's ids and of the speaker, `T(bos) + E(pad)`
//! - text, by [`TextLayout`], with the reference of a cloned voice where there is one
//!
//! All rows before the text are the same for a voice and a language, so their keys and values can be kept
//! ([`Talker::prefix`]).

use std::collections::VecDeque;
use std::ops::Range;

use mk_model::text::Tokenizer;

use super::{Talker, rows};
use crate::config::TtsConfig;
use crate::error::{Error, Result};
use crate::text::position::SpokenToken;

/// How the text comes to the talker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TextLayout {
    /// One token with every frame: speech can begin with the first token. qwen_tts' `non_streaming_mode=False`.
    #[default]
    Streaming,
    /// All of it before the first frame: the talker knows the whole text. qwen_tts' `non_streaming_mode=True`.
    Whole,
}

/// What a prompt is made of, beside the text.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptSpec {
    /// Ids of the instruction, wrapped as [`instruction_ids`] does; empty for none.
    pub instruction: Vec<u32>,
    /// Codec id of the language; `None` lets the model find out.
    pub language: Option<u32>,
    /// Who speaks.
    pub speaker: SpeakerRow,
    /// What a voice is cloned from, beside the speaker.
    pub reference: Option<Reference>,
    /// How the text comes.
    pub layout: TextLayout,
}

/// How the prompt says who speaks.
#[derive(Debug, Clone, PartialEq)]
pub enum SpeakerRow {
    /// Not at all: the instruction does, or nothing.
    None,
    /// By an id of the codec's vocabulary.
    Id(u32),
    /// By a vector of the speaker encoder, as wide as the talker.
    Vector(Vec<f32>),
}

/// A recording that the talker continues (in-context learning).
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Ids of what is said in it.
    pub text: Vec<u32>,
    /// Its codes, `[frames][code_groups]`.
    pub codes: Vec<u32>,
}

/// One token of the text and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextToken {
    /// Its id.
    pub id: u32,
    /// Bytes of the text that it stands for.
    pub text: Range<usize>,
}

/// Ids of `<|im_start|>assistant\n`, which precede the text.
///
/// # Errors
/// [`Error::Tokenizer`] if they are not three, as the layout has it.
pub(crate) fn role_ids(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let ids = tokenizer.encode("<|im_start|>assistant\n")?;
    if ids.len() != 3 {
        let reason = format!("<|im_start|>assistant\\n is {} tokens, expected 3", ids.len());
        return Err(Error::Tokenizer { reason });
    }
    Ok(ids)
}

/// Ids of an instruction as the prompt holds it; none for an empty one. `instruction` is taken as plain text.
///
/// # Errors
/// Those of the tokenizer.
pub fn instruction_ids(tokenizer: &Tokenizer, instruction: &str) -> Result<Vec<u32>> {
    let instruction = instruction.trim();
    if instruction.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids = tokenizer.encode("<|im_start|>user\n")?;
    ids.extend(tokenizer.encode_plain(instruction)?);
    ids.extend(tokenizer.encode("<|im_end|>\n")?);
    Ok(ids)
}

/// The codec id of a language by its name, with the dialect rule of qwen_tts: Chinese, or a language left open, is the
/// dialect of a speaker who has one.
///
/// # Errors
/// [`Error::UnknownLanguage`] with the names there are.
pub fn language_id(
    config: &TtsConfig,
    language: &str,
    dialect: Option<&str>,
) -> Result<Option<u32>> {
    let language = language.to_lowercase();
    let known = || config.language_names().map(str::to_string).collect::<Vec<_>>();
    if let Some(dialect) = dialect
        && (language == "chinese" || language == "auto")
    {
        return Ok(config.languages.get(dialect).copied());
    }
    if language == "auto" {
        return Ok(None);
    }
    let id = config.languages.get(&language).copied();
    id.map(Some).ok_or_else(|| Error::UnknownLanguage { name: language, known: known() })
}

/// The text as the talker is fed it: tokens, then once the end, then nothing for ever.
pub struct TextFeed<'a> {
    /// Tokens that are no text of the caller's: what of a reference's text did not fit its frames.
    before: VecDeque<u32>,
    source: Box<dyn FnMut() -> Result<Option<SpokenToken>> + Send + 'a>,
    ended: bool,
    /// Tokens given out and not taken note of yet.
    fed: Vec<SpokenToken>,
}

impl<'a> TextFeed<'a> {
    /// A feed from `source`, which gives the next token, waits for it, or says with `None` that there is none.
    pub fn new(source: impl FnMut() -> Result<Option<SpokenToken>> + Send + 'a) -> Self {
        let source = Box::new(source);
        Self { before: VecDeque::new(), source, ended: false, fed: Vec::new() }
    }

    /// A feed of a text that is known.
    pub fn of(tokens: Vec<SpokenToken>) -> Self {
        let mut tokens = tokens.into_iter();
        Self::new(move || Ok(tokens.next()))
    }

    /// Whether the end of the text was given out.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The tokens given out since this was asked last.
    pub fn take_fed(&mut self) -> Vec<SpokenToken> {
        std::mem::take(&mut self.fed)
    }

    /// The next id for the talker.
    ///
    /// # Errors
    /// Those of the source.
    pub fn next_id(&mut self, config: &TtsConfig) -> Result<u32> {
        if let Some(id) = self.before.pop_front() {
            return Ok(id);
        }
        if self.ended {
            return Ok(config.text_ids.pad);
        }
        match (self.source)()? {
            Some(token) => {
                let id = token.token.id;
                self.fed.push(token);
                Ok(id)
            }
            None => {
                self.ended = true;
                Ok(config.text_ids.eos)
            }
        }
    }

    /// What is left up to the end, which is included.
    fn rest(&mut self, config: &TtsConfig) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        while !self.ended {
            ids.push(self.next_id(config)?);
        }
        Ok(ids)
    }
}

impl Talker {
    /// The rows before the text, f32 `[rows, hidden_size]`: the same for all texts of a voice in a language. Those of a
    /// reference's text are among them.
    ///
    /// # Errors
    /// Ids or vectors that do not fit the model.
    pub fn prefix(&self, role: &[u32], spec: &PromptSpec) -> Result<Vec<f32>> {
        let (config, all) = (self.config(), self.rows());
        let ids = &config.codec_ids;
        let mut rows = all.text(&spec.instruction)?;
        rows.extend(all.text(role)?);

        let (pad, bos) = (all.text(&[config.text_ids.pad])?, all.text(&[config.text_ids.bos])?);
        let control = match spec.language {
            Some(language) => vec![ids.think, ids.think_bos, language, ids.think_eos],
            None => vec![ids.nothink, ids.think_bos, ids.think_eos],
        };
        for id in control {
            rows.extend(sum(&pad, &all.codec(id)?));
        }
        match &spec.speaker {
            SpeakerRow::None => {}
            SpeakerRow::Id(id) => rows.extend(sum(&pad, &all.codec(*id)?)),
            SpeakerRow::Vector(vector) if vector.len() == all.width() => {
                rows.extend(sum(&pad, vector));
            }
            SpeakerRow::Vector(vector) => {
                let (found, expected) = (vector.len(), all.width());
                return Err(Error::SpeakerWidth { found, expected });
            }
        }
        rows.extend(sum(&bos, &all.codec(ids.pad)?));

        if let Some(reference) = &spec.reference {
            let columns = self.reference_columns(spec.layout, reference)?;
            let text = &reference.text[..columns.len().min(reference.text.len())];
            rows.extend(self.over(text, &columns)?);
        }
        Ok(rows)
    }

    /// The rows of the text, as far as they precede the first frame: f32 `[rows, hidden_size]`. Takes from `feed` what
    /// goes into them; in the streaming layout what is left follows frame by frame.
    ///
    /// # Errors
    /// Those of the feed's source, and codes that do not fit the model.
    pub fn opening(&self, spec: &PromptSpec, feed: &mut TextFeed<'_>) -> Result<Vec<f32>> {
        let (config, all) = (self.config(), self.rows());
        let (pad, bos) = (config.codec_ids.pad, config.codec_ids.bos);
        match (&spec.reference, spec.layout) {
            (None, TextLayout::Streaming) => {
                let first = feed.next_id(config)?;
                Ok(sum(&all.text(&[first])?, &all.codec(bos)?))
            }
            (None, TextLayout::Whole) => {
                let ids = feed.rest(config)?;
                let mut rows = self.over(&ids, &vec![all.codec(pad)?; ids.len()])?;
                rows.extend(sum(&all.text(&[config.text_ids.pad])?, &all.codec(bos)?));
                Ok(rows)
            }
            (Some(reference), TextLayout::Streaming) => {
                let columns = self.reference_columns(spec.layout, reference)?;
                let known = reference.text.len().min(columns.len());
                feed.before.extend(&reference.text[known..]);
                let ids = columns[known..].iter().map(|_| feed.next_id(config));
                self.over(&ids.collect::<Result<Vec<_>>>()?, &columns[known..])
            }
            (Some(reference), TextLayout::Whole) => {
                let ids = feed.rest(config)?;
                let mut rows = self.over(&ids, &vec![all.codec(pad)?; ids.len()])?;
                let nothing = all.text(&[config.text_ids.pad])?;
                for column in self.frames_of(reference)? {
                    rows.extend(sum(&nothing, &column));
                }
                Ok(rows)
            }
        }
    }

    /// The codec's part of the rows that a reference's text goes with.
    fn reference_columns(
        &self,
        layout: TextLayout,
        reference: &Reference,
    ) -> Result<Vec<Vec<f32>>> {
        match layout {
            TextLayout::Streaming => self.frames_of(reference),
            TextLayout::Whole => {
                let pad = self.rows().codec(self.config().codec_ids.pad)?;
                Ok(vec![pad; reference.text.len()])
            }
        }
    }

    /// The beginning, then the frames of a reference.
    fn frames_of(&self, reference: &Reference) -> Result<Vec<Vec<f32>>> {
        let groups = self.config().code_groups;
        if !reference.codes.len().is_multiple_of(groups) {
            return Err(Error::NotWholeFrames { found: reference.codes.len(), groups });
        }
        let bos = self.rows().codec(self.config().codec_ids.bos);
        let frames = reference.codes.chunks_exact(groups).map(|codes| self.rows().frame(codes));
        std::iter::once(bos).chain(frames).collect()
    }

    /// Rows of text ids, each over its part of the codec.
    fn over(&self, ids: &[u32], columns: &[Vec<f32>]) -> Result<Vec<f32>> {
        let width = self.rows().width();
        let mut rows = self.rows().text(ids)?;
        for (row, column) in rows.chunks_exact_mut(width).zip(columns) {
            rows::add(row, column);
        }
        Ok(rows)
    }
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut sum = a.to_vec();
    rows::add(&mut sum, b);
    sum
}
