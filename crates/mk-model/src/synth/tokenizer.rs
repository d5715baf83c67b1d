//! A byte-level BPE tokenizer of any size, with Qwen's rules and added tokens.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::corpus::CORPUS;
use crate::text::byte_chars;
use crate::text::tokenizer::{QWEN2_SPLIT, split_qwen2};

/// Qwen3's added tokens in the order of their ids, which follow those of the BPE, and whether they are `special`:
/// left out of a decode that skips such.
pub const ADDED: [(&str, bool); 26] = [
    ("<|endoftext|>", true),
    ("<|im_start|>", true),
    ("<|im_end|>", true),
    ("<|object_ref_start|>", true),
    ("<|object_ref_end|>", true),
    ("<|box_start|>", true),
    ("<|box_end|>", true),
    ("<|quad_start|>", true),
    ("<|quad_end|>", true),
    ("<|vision_start|>", true),
    ("<|vision_end|>", true),
    ("<|vision_pad|>", true),
    ("<|image_pad|>", true),
    ("<|video_pad|>", true),
    ("<tool_call>", false),
    ("</tool_call>", false),
    ("<|fim_prefix|>", false),
    ("<|fim_middle|>", false),
    ("<|fim_suffix|>", false),
    ("<|fim_pad|>", false),
    ("<|repo_name|>", false),
    ("<|file_sep|>", false),
    ("<tool_response>", false),
    ("</tool_response>", false),
    ("<think>", false),
    ("</think>", false),
];

const CHAT_TEMPLATE: &str = include_str!("chat_template.jinja");

type Pair = (u32, u32);

/// The vocabulary, as the bytes of every token in the order of ids, and the merges in the order of their rank.
pub struct Bpe {
    tokens: Vec<Vec<u8>>,
    merges: Vec<Pair>,
    ids: HashMap<Vec<u8>, u32>,
}

impl Bpe {
    /// Exactly `size` tokens, or the 256 bytes and the pieces of `words` where that is less: each of `words` as one
    /// token, then what the corpus teaches, then fillers.
    ///
    /// # Errors
    /// None: the expression that splits the corpus is a constant.
    pub fn train(size: usize, words: &[&str]) -> Result<Self, tokenizers::Error> {
        // Ids go by the order of GPT-2's byte alphabet, as in every byte-level BPE since.
        let mut bytes: Vec<u8> = (0..=255).collect();
        bytes.sort_by_key(|&byte| byte_chars()[usize::from(byte)]);
        let mut bpe = Self { tokens: Vec::new(), merges: Vec::new(), ids: HashMap::new() };
        for byte in bytes {
            bpe.id_of(vec![byte]);
        }
        for word in words {
            bpe.join(word);
        }
        bpe.learn(size)?;
        bpe.fill(size);
        Ok(bpe)
    }

    fn id_of(&mut self, token: Vec<u8>) -> u32 {
        let next = self.tokens.len() as u32;
        *self.ids.entry(token).or_insert_with_key(|token| {
            self.tokens.push(token.clone());
            next
        })
    }

    fn joined(&self, (a, b): Pair) -> Vec<u8> {
        [self.tokens[a as usize].as_slice(), &self.tokens[b as usize]].concat()
    }

    fn merge(&mut self, pair: Pair) -> u32 {
        self.merges.push(pair);
        self.id_of(self.joined(pair))
    }

    /// Merges the bytes of a word from left to right.
    fn join(&mut self, word: &str) {
        let ids: Vec<u32> = word.bytes().map(|byte| self.ids[&vec![byte]]).collect();
        ids.into_iter().reduce(|left, right| match self.merges.contains(&(left, right)) {
            true => self.ids[&self.joined((left, right))],
            false => self.merge((left, right)),
        });
    }

    /// Exchanges a token's id for `id`, where both are in the vocabulary; merges refer to what they did.
    pub fn place(&mut self, token: &str, id: u32) {
        let Some(&now) = self.ids.get(token.as_bytes()) else { return };
        if id as usize >= self.tokens.len() {
            return;
        }
        self.tokens.swap(now as usize, id as usize);
        for at in [now, id] {
            self.ids.insert(self.tokens[at as usize].clone(), at);
        }
        let moved = |at: u32| match at {
            _ if at == now => id,
            _ if at == id => now,
            _ => at,
        };
        for pair in &mut self.merges {
            *pair = (moved(pair.0), moved(pair.1));
        }
    }

    /// The id of a token, if the vocabulary has it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token.as_bytes()).copied()
    }

    /// Merges the most frequent pair of the corpus (the lowest ids among equals), as long as one is there twice.
    fn learn(&mut self, size: usize) -> Result<(), tokenizers::Error> {
        let mut counts = BTreeMap::<&str, usize>::new();
        for word in split_qwen2(CORPUS)? {
            *counts.entry(word).or_default() += 1;
        }
        let mut words: Vec<(Vec<u32>, usize)> = counts
            .into_iter()
            .map(|(word, count)| (word.bytes().map(|b| self.ids[&vec![b]]).collect(), count))
            .collect();
        for &pair in &self.merges {
            let id = self.ids[&self.joined(pair)];
            for (word, _) in &mut words {
                replace_pair(word, pair, id);
            }
        }
        while self.tokens.len() < size {
            let mut pairs = HashMap::<Pair, usize>::new();
            for (word, count) in &words {
                for pair in word.windows(2) {
                    *pairs.entry((pair[0], pair[1])).or_default() += count;
                }
            }
            let best =
                pairs.into_iter().max_by_key(|&(pair, count)| (count, std::cmp::Reverse(pair)));
            let Some((pair, 2..)) = best else { break };
            let id = self.merge(pair);
            for (word, _) in &mut words {
                replace_pair(word, pair, id);
            }
        }
        Ok(())
    }

    /// Joins pieces of English words, early ones first, until the vocabulary is full. The results serve as pieces
    /// too, so that there is no end of them.
    fn fill(&mut self, size: usize) {
        let letters = |token: &[u8]| !token.is_empty() && token.iter().all(u8::is_ascii_alphabetic);
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        let mut seen = 0;
        for diagonal in 0.. {
            if self.tokens.len() >= size {
                return;
            }
            for (id, token) in self.tokens.iter().enumerate().skip(seen) {
                if letters(token.strip_prefix(b" ").unwrap_or(token)) {
                    starts.push(id as u32);
                }
                if letters(token) {
                    ends.push(id as u32);
                }
            }
            seen = self.tokens.len();
            for first in 0..=diagonal {
                let (Some(&a), Some(&b)) = (starts.get(first), ends.get(diagonal - first)) else {
                    continue;
                };
                if self.tokens.len() < size && !self.ids.contains_key(&self.joined((a, b))) {
                    self.merge((a, b));
                }
            }
        }
    }

    fn text(&self, id: usize) -> String {
        self.tokens[id].iter().map(|&byte| byte_chars()[usize::from(byte)]).collect()
    }

    /// The added tokens with their ids, which follow on the vocabulary, as `added_tokens_decoder` describes them.
    pub fn added(&self, added: &[(&str, bool)]) -> Map<String, Value> {
        let describe = |(i, (content, special)): (usize, &(&str, bool))| {
            let token = json!({
                "content": content,
                "lstrip": false,
                "normalized": false,
                "rstrip": false,
                "single_word": false,
                "special": special,
            });
            ((self.tokens.len() + i).to_string(), token)
        };
        added.iter().enumerate().map(describe).collect()
    }

    /// `vocab.json`.
    pub fn vocab_json(&self) -> Value {
        let vocab: Map<String, Value> =
            (0..self.tokens.len()).map(|id| (self.text(id), id.into())).collect();
        vocab.into()
    }

    /// `merges.txt`.
    pub fn merges_txt(&self) -> String {
        let lines = self.merges().map(|[a, b]| format!("{a} {b}\n"));
        std::iter::once("#version: 0.2\n".into()).chain(lines).collect()
    }

    fn merges(&self) -> impl Iterator<Item = [String; 2]> {
        self.merges.iter().map(|&(a, b)| [a, b].map(|id| self.text(id as usize)))
    }

    /// `tokenizer.json`.
    pub fn tokenizer_json(&self, added: &[(&str, bool)]) -> Value {
        let merges: Vec<[String; 2]> = self.merges().collect();
        let added: Vec<Value> = self
            .added(added)
            .into_values()
            .zip(self.tokens.len()..)
            .map(|(mut token, id)| {
                token["id"] = id.into();
                token
            })
            .collect();
        let byte_level = json!({
            "type": "ByteLevel",
            "add_prefix_space": false,
            "trim_offsets": false,
            "use_regex": false,
        });
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": { "type": "NFC" },
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": { "Regex": QWEN2_SPLIT },
                        "behavior": "Isolated",
                        "invert": false,
                    },
                    byte_level,
                ],
            },
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": false,
                "vocab": self.vocab_json(),
                "merges": merges,
            },
        })
    }
}

/// `tokenizer_config.json` of a Qwen3 model, the chat template included.
pub(super) fn config(bpe: &Bpe) -> Value {
    // Without the first, which is the padding, these are the ones that are special and have no other role.
    let additional: Vec<&str> =
        ADDED.into_iter().skip(1).filter(|(_, special)| *special).map(|(name, _)| name).collect();
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": bpe.added(&ADDED),
        "additional_special_tokens": additional,
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131_072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": false,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    })
}

fn replace_pair(word: &mut Vec<u32>, pair: Pair, with: u32) {
    let mut i = 0;
    while i + 1 < word.len() {
        if (word[i], word[i + 1]) == pair {
            word[i] = with;
            word.remove(i + 1);
        }
        i += 1;
    }
}
