//! The tokenizer's files as Qwen2's slow tokenizer has them: there is no `tokenizer.json` in the published models.

use std::io::Write;
use std::path::Path;

use mk_model::synth::file;
use mk_model::synth::tokenizer::{ADDED as QWEN3, Bpe};
use serde_json::json;

use super::{Spec, TextIds};
use crate::error::Result;

/// What Qwen3-TTS adds to Qwen3's added tokens.
const AUDIO: [(&str, bool); 7] = [
    ("<|audio_start|>", true),
    ("<|audio_end|>", true),
    ("<tts_pad>", true),
    ("<tts_text_bos>", true),
    ("<tts_text_eod>", true),
    ("<tts_text_bos_single>", true),
    ("<|audio_pad|>", true),
];

/// Words that the prompts are made of, with their ids in the published models. The talker cuts its prompt by position,
/// so that the first has to be one token.
const WORDS: [(&str, u32); 2] = [("assistant", 77_091), ("user", 872)];

/// Rows that a text vocabulary needs: the bytes, the pieces of the words, the added tokens and three to spare.
pub(super) const SMALLEST: usize = 256 + 8 + 3 + QWEN3.len() + AUDIO.len() + 3;

/// Writes `vocab.json`, `merges.txt` and `tokenizer_config.json`.
pub(super) fn write(spec: &Spec, dir: &Path) -> Result<TextIds> {
    let added: Vec<(&str, bool)> = QWEN3.into_iter().chain(AUDIO).collect();
    let bpe_size = spec.tokens() - added.len();
    let broken = |reason: String| mk_model::Error::Tokenizer { path: dir.into(), reason };
    let mut bpe =
        Bpe::train(bpe_size, &WORDS.map(|(word, _)| word)).map_err(|e| broken(e.to_string()))?;
    for (word, published) in WORDS {
        bpe.place(word, published);
    }
    file::write_json(dir, "vocab.json", &bpe.vocab_json())?;
    file::write(dir, "merges.txt", |out| out.write_all(bpe.merges_txt().as_bytes()))?;
    let config = json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": bpe.added(&added),
        "bos_token": null,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131_072,
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen3TTSProcessor",
        "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    });
    file::write_json(dir, "tokenizer_config.json", &config)?;
    let place = |token: &str| {
        let found = added.iter().position(|(name, _)| *name == token);
        found.map(|i| bpe_size + i).ok_or_else(|| broken(format!("no {token}")))
    };
    Ok(TextIds {
        im_start: place("<|im_start|>")?,
        im_end: place("<|im_end|>")?,
        tts_pad: place("<tts_pad>")?,
        tts_bos: place("<tts_text_bos>")?,
        tts_eos: place("<tts_text_eod>")?,
        assistant: bpe.id("assistant").ok_or_else(|| broken("no assistant".into()))? as usize,
    })
}
