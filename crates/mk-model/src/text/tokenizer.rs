//! Byte-level BPE as the Qwen models use it: text to ids, ids to text.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NFC, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecoderWrapper, Encoding, Model, ModelWrapper, NormalizedString, Normalizer,
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
};

use super::table::Table;
use crate::config::Config;
use crate::error::{Error, Result};

/// How Qwen2, 2.5 and 3 cut text into words before the merges: the `PRETOKENIZE_REGEX` of transformers'
/// `models/qwen2/tokenization_qwen2.py`.
pub(crate) const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// More ids than any vocabulary has; bounds the memory that a broken file can ask for.
const MAX_IDS: usize = 1 << 24;

/// A tokenizer. Cloning is cheap, and it may be used from several threads at once.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    table: Arc<Table>,
    path: Arc<Path>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`; where there is none, `vocab.json`, `merges.txt` and the `added_tokens_decoder` of
    /// `tokenizer_config.json`, with Qwen2's rules for all that these files leave open.
    ///
    /// # Errors
    /// [`Error::Tokenizer`]: files missing, broken, or not of a byte-level BPE.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let file = dir.join("tokenizer.json");
        if file.exists() {
            // By way of a `Value`, since the library panics over a decoder that is not JSON.
            let inner = serde_json::from_value(parse(&file)?).map_err(|e| broken(&file, &e))?;
            return Self::new(inner, file);
        }
        let file = dir.join("vocab.json");
        if !file.exists() {
            return Err(broken(dir, &"neither tokenizer.json nor vocab.json is there"));
        }
        Self::new(from_vocab_and_merges(dir, &file)?, file)
    }

    fn new(inner: tokenizers::Tokenizer, path: PathBuf) -> Result<Self> {
        // Decoding goes through a table of bytes, so that it can be done token by token.
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(broken(&path, &"not a byte-level tokenizer: its decoder is another"));
        }
        let model = inner.get_model();
        let added = inner.get_added_vocabulary();
        let ids = model.get_vocab().into_values();
        let ids = ids.chain(added.get_added_tokens_decoder().keys().copied());
        let size = ids.max().map_or(0, |id| id as usize + 1);
        if size == 0 || size > MAX_IDS {
            return Err(broken(&path, &format!("has {size} ids, expected 1 to {MAX_IDS}")));
        }
        let mut table = Table::default();
        for id in 0..size as u32 {
            let token = added.simple_id_to_token(id).or_else(|| model.id_to_token(id));
            let special = token.as_deref().is_some_and(|token| added.is_special_token(token));
            table.push(token.as_deref(), special);
        }
        Ok(Self { inner: Arc::new(inner), table: Arc::new(table), path: path.into() })
    }

    /// The ids of `text`, in which added tokens (`<|im_start|>`, `<think>`, ...) are recognised, as Hugging Face's
    /// tokenizers do by default.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a text that the split expression cannot cope with.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(|e| self.failed(e.as_ref()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of `text` taken as text alone: what looks like an added token is spelled out, so that a user cannot
    /// end a turn by writing `<|im_end|>`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.merge(self.words(text)?, OffsetType::None)?.get_ids().to_vec())
    }

    /// The words of `text` taken as text alone, to which the merges are applied one by one.
    pub(super) fn words(&self, text: &str) -> Result<PreTokenizedString> {
        let mut text = NormalizedString::from(text);
        if let Some(normalizer) = self.normalizer() {
            normalizer.normalize(&mut text).map_err(|e| self.failed(e.as_ref()))?;
        }
        let mut words = PreTokenizedString::from(text);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut words).map_err(|e| self.failed(e.as_ref()))?;
        }
        Ok(words)
    }

    /// The tokens of `words`, with their places in the text if `offsets` asks for them.
    pub(super) fn merge(
        &self,
        mut words: PreTokenizedString,
        offsets: OffsetType,
    ) -> Result<Encoding> {
        let model = self.inner.get_model();
        words.tokenize(|word| model.tokenize(word.get())).map_err(|e| self.failed(e.as_ref()))?;
        words.into_encoding(None, 0, offsets).map_err(|e| self.failed(e.as_ref()))
    }

    pub(super) fn normalizer(&self) -> Option<&NormalizerWrapper> {
        self.inner.get_normalizer()
    }

    /// The text of `ids`, without the special tokens among them if `skip_special` is set. Bytes that are not UTF-8
    /// become U+FFFD; ids without a token become nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if !(skip_special && self.is_special(id)) {
                bytes.extend_from_slice(self.bytes(id));
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes that `id` stands for, which need not be whole characters; none for an id without a token.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.table.bytes(id)
    }

    /// Whether `id` is a special token, which a decode may leave out. `<think>` and `<tool_call>` are not.
    pub fn is_special(&self, id: u32) -> bool {
        self.table.is_special(id)
    }

    /// The token as the tokenizer's file writes it: `Ġthe` for " the".
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, written as in the tokenizer's file.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The highest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.table.len()
    }

    /// Checks that the model has a row for every id. It may have more: published models do.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where it has not.
    pub fn check_fits(&self, config: &Config) -> Result<()> {
        if self.vocab_size() <= config.vocab_size {
            return Ok(());
        }
        let reason = format!(
            "has ids up to {}, but the model has {} rows only",
            self.vocab_size() - 1,
            config.vocab_size
        );
        Err(broken(&self.path, &reason))
    }

    fn failed(&self, reason: &dyn fmt::Display) -> Error {
        broken(&self.path, reason)
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The vocabulary would drown whatever this is printed with.
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

/// The words of `text` by Qwen2's rules.
pub(crate) fn split_qwen2(text: &str) -> Result<Vec<&str>, tokenizers::Error> {
    let mut words = PreTokenizedString::from(text);
    qwen2_split()?.pre_tokenize(&mut words)?;
    let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(splits.into_iter().map(|(_, (start, end), _)| &text[start..end]).collect())
}

fn qwen2_split() -> Result<Split, tokenizers::Error> {
    let pattern = SplitPattern::Regex(QWEN2_SPLIT.into());
    Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
}

fn from_vocab_and_merges(dir: &Path, vocab_file: &Path) -> Result<tokenizers::Tokenizer> {
    let vocab: Vocab = parse::<HashMap<String, u32>>(vocab_file)?.into_iter().collect();
    let merges_file = dir.join("merges.txt");
    let merges = read(&merges_file)?;
    let config_file = dir.join("tokenizer_config.json");
    let config: Value = parse(&config_file)?;

    let merges = parse_merges(&merges).map_err(|reason| broken(&merges_file, &reason))?;
    let bpe = BPE::builder().vocab_and_merges(vocab, merges);
    let bpe = bpe.build().map_err(|e| broken(&merges_file, e.as_ref()))?;
    let mut tokenizer = tokenizers::Tokenizer::new(ModelWrapper::from(bpe));
    let split = qwen2_split().map_err(|e| broken(dir, e.as_ref()))?;
    let bytes = ByteLevel::new(false, false, false);
    tokenizer
        .with_normalizer(Some(NormalizerWrapper::from(NFC)))
        .map_err(|e| broken(dir, e.as_ref()))?
        .with_pre_tokenizer(Some(Sequence::new(vec![
            PreTokenizerWrapper::from(split),
            PreTokenizerWrapper::from(bytes),
        ])))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(bytes));

    let added = parse_added(&config).map_err(|reason| broken(&config_file, &reason))?;
    for (id, token) in added {
        let content = token.content.clone();
        tokenizer.add_tokens([token]).map_err(|e| broken(&config_file, e.as_ref()))?;
        // The library numbers added tokens by itself, one after the other.
        if tokenizer.token_to_id(&content) != Some(id) {
            let reason = format!(
                "added_tokens_decoder: {content:?} cannot have the id {id}: ids must follow on the vocabulary without gaps"
            );
            return Err(broken(&config_file, &reason));
        }
    }
    Ok(tokenizer)
}

/// One merge a line, its two parts with a space between; the first line may be a comment with the format's version.
fn parse_merges(text: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        match line.split_once(' ') {
            Some((a, b)) if !a.is_empty() && !b.is_empty() && !b.contains(' ') => {
                merges.push((a.into(), b.into()));
            }
            _ => return Err(format!("line {}: expected two tokens, found {line:?}", number + 1)),
        }
    }
    Ok(merges)
}

/// The object `added_tokens_decoder`, in the order of its ids.
fn parse_added(config: &Value) -> Result<Vec<(u32, AddedToken)>, String> {
    let Some(decoder) = config.get("added_tokens_decoder") else { return Ok(Vec::new()) };
    let decoder = decoder.as_object().ok_or("added_tokens_decoder: not an object")?;
    let mut added = Vec::new();
    for (id, token) in decoder {
        let bad = |reason: &str| format!("added_tokens_decoder: {id:?}: {reason}");
        let number = id.parse::<u32>().map_err(|_| bad("not an id"))?;
        let content =
            token.get("content").and_then(Value::as_str).ok_or_else(|| bad("no content"))?;
        let flag = |name: &str| token.get(name).and_then(Value::as_bool).unwrap_or(false);
        let token = AddedToken::from(content, flag("special"))
            .single_word(flag("single_word"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .normalized(flag("normalized"));
        added.push((number, token));
    }
    added.sort_by_key(|(id, _)| *id);
    Ok(added)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| broken(path, &e))
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&read(path)?).map_err(|e| broken(path, &e))
}

fn broken(path: &Path, reason: &(impl fmt::Display + ?Sized)) -> Error {
    Error::Tokenizer { path: path.into(), reason: reason.to_string() }
}
