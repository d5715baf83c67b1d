//! A reply as OpenAI's objects: whole, or in chunks.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chat::created;
use crate::chat::request::ChatRequest;
use crate::doubles::App;
use crate::script::{DeltaSize, Reply, Usage};

/// An answer before it is sent.
#[derive(Debug)]
pub(crate) struct Answer {
    id: String,
    created: u64,
    model: String,
    reply: Reply,
    usage: Usage,
    /// Ids of the tool calls, in their order.
    call_ids: Vec<String>,
    include_usage: bool,
    /// Random characters, of which each chunk takes some so that its length says nothing.
    obfuscation: Option<String>,
}

/// A chunk of a stream.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// How long it is waited for, in the time of the real service.
    pub(crate) delay: Duration,
    pub(crate) value: Value,
    /// Whether it carries text or a part of a tool call.
    pub(crate) is_delta: bool,
}

impl Answer {
    pub(crate) fn new(app: &App, request: &ChatRequest, reply: &Reply) -> Self {
        let words = |text: &str| text.split_whitespace().count() as u32;
        let called = reply.tool_calls.iter().map(|call| 1 + words(&call.arguments)).sum::<u32>();
        let usage = reply.usage.unwrap_or(Usage {
            prompt_tokens: request.prompt_words,
            completion_tokens: words(&reply.text) + called,
        });
        let call_ids = reply.tool_calls.iter().map(|_| format!("call_{}", app.ids.letters(24)));
        Self {
            id: format!("chatcmpl-{}", app.ids.letters(29)),
            created: created(),
            model: request.model.clone(),
            call_ids: call_ids.collect(),
            usage,
            include_usage: request.include_usage,
            obfuscation: request.include_obfuscation.then(|| app.ids.letters(16)),
            reply: reply.clone(),
        }
    }

    /// How long the whole answer takes.
    pub(crate) fn whole_delay(&self) -> Duration {
        self.chunks().iter().map(|chunk| chunk.delay).sum()
    }

    /// The answer in one piece.
    pub(crate) fn whole(&self) -> Value {
        let reply = &self.reply;
        let text = (!reply.text.is_empty() || reply.tool_calls.is_empty()).then_some(&reply.text);
        let mut message = json!({
            "role": "assistant", "content": text, "refusal": null, "annotations": [],
        });
        if !reply.tool_calls.is_empty() {
            let calls = reply.tool_calls.iter().zip(&self.call_ids).map(|(call, id)| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": id, "type": "function", "function": function})
            });
            message["tool_calls"] = calls.collect();
        }
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": message,
                "logprobs": null,
                "finish_reason": self.finish_reason(),
            }],
            "usage": self.usage(),
            "service_tier": "default",
            "system_fingerprint": "fp_double",
        })
    }

    /// The answer in chunks.
    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        let reply = &self.reply;
        let first = Duration::from_millis(reply.first_token_ms);
        let between = Duration::from_millis(reply.delta_ms);
        let mut chunks = Vec::new();
        let mut push = |delta: Value, is_delta: bool| {
            // The role comes with the first token.
            let delay = if chunks.is_empty() { first } else { between };
            let value = self.chunk(delta, None);
            chunks.push(Chunk { delay, value, is_delta });
        };
        let speaks = !reply.text.is_empty() || reply.tool_calls.is_empty();
        if speaks {
            push(json!({"role": "assistant", "content": "", "refusal": null}), false);
            for piece in pieces(&reply.text, reply.delta) {
                push(json!({"content": piece}), true);
            }
        }
        for (index, (call, id)) in reply.tool_calls.iter().zip(&self.call_ids).enumerate() {
            let function = json!({"name": call.name, "arguments": ""});
            let opening = json!([{
                "index": index, "id": id, "type": "function", "function": function,
            }]);
            if index == 0 && !speaks {
                let role = json!({
                    "role": "assistant", "content": null, "tool_calls": opening, "refusal": null,
                });
                push(role, true);
            } else {
                push(json!({"tool_calls": opening}), true);
            }
            for piece in pieces(&call.arguments, DeltaSize::Chars(call.fragment_chars)) {
                let function = json!({"arguments": piece});
                push(json!({"tool_calls": [{"index": index, "function": function}]}), true);
            }
        }
        let end = self.chunk(json!({}), Some(self.finish_reason()));
        // The role and the first delta come together.
        if speaks && let Some(chunk) = chunks.get_mut(1) {
            chunk.delay = Duration::ZERO;
        }
        chunks.push(Chunk { delay: Duration::ZERO, value: end, is_delta: false });
        if self.include_usage {
            let mut value = self.envelope(json!([]));
            value["usage"] = self.usage();
            chunks.push(Chunk { delay: Duration::ZERO, value, is_delta: false });
        }
        chunks
    }

    fn chunk(&self, delta: Value, finish_reason: Option<&str>) -> Value {
        let mut value = self.envelope(json!([{
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason,
        }]));
        if self.include_usage {
            value["usage"] = Value::Null;
        }
        value
    }

    fn envelope(&self, choices: Value) -> Value {
        let padding = choices[0]["delta"]["content"].as_str().map_or(0, str::len) % 16;
        let mut value = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_double",
            "choices": choices,
        });
        if let Some(obfuscation) = &self.obfuscation {
            value["obfuscation"] = obfuscation[padding..].into();
        }
        value
    }

    fn finish_reason(&self) -> &str {
        let usual = if self.reply.tool_calls.is_empty() { "stop" } else { "tool_calls" };
        self.reply.finish_reason.as_deref().unwrap_or(usual)
    }

    fn usage(&self) -> Value {
        let Usage { prompt_tokens, completion_tokens } = self.usage;
        json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        })
    }
}

/// A text in deltas: words keep the space before them.
fn pieces(text: &str, size: DeltaSize) -> Vec<&str> {
    let mut cuts = vec![0];
    match size {
        DeltaSize::Chars(count) => {
            cuts.extend(text.char_indices().step_by(count.max(1)).skip(1).map(|(at, _)| at));
        }
        DeltaSize::Words(count) => {
            let begins = |&(at, c): &(usize, char)| {
                c.is_whitespace()
                    && text[..at].chars().next_back().is_some_and(|c| !c.is_whitespace())
            };
            let spaces = text.char_indices().filter(begins).map(|(at, _)| at);
            cuts.extend(spaces.skip(count.saturating_sub(1)).step_by(count.max(1)));
        }
    }
    cuts.push(text.len());
    let cut = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]);
    cut.filter(|piece| !piece.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_make_the_text_again() {
        let text = "Héllo there,  my friend.";
        assert_eq!(pieces(text, DeltaSize::Words(1)), ["Héllo", " there,", "  my", " friend."]);
        assert_eq!(pieces(text, DeltaSize::Words(3)), ["Héllo there,  my", " friend."]);
        assert_eq!(pieces("añb", DeltaSize::Chars(2)), ["añ", "b"]);
        for size in 1..30 {
            assert_eq!(pieces(text, DeltaSize::Chars(size)).concat(), text);
            assert_eq!(pieces(text, DeltaSize::Words(size)).concat(), text);
        }
        assert!(pieces("", DeltaSize::Words(1)).is_empty());
    }
}
