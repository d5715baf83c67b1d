//! From the chunks of a stream to the parts of an answer.

use super::retry::Failure;
use super::wire::{Chunk, Delta, Fragment, finish_reason};
use crate::llm::markup::{Markup, Part, THOUGHT};
use crate::llm::{FinishReason, LlmEvent, ToolCall, Usage};

/// What the stream ends with.
const DONE: &str = "[DONE]";
/// Calls of one answer, and bytes of all their arguments, beyond which a service is broken.
const MAX_CALLS: usize = 128;
const MAX_ARGUMENTS: usize = 1 << 20;

/// An answer as far as it has come.
#[derive(Debug)]
pub(super) struct Assembler {
    markup: Markup,
    calls: Vec<Call>,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
    begun: bool,
    done: bool,
}

/// A call as far as it has come.
#[derive(Debug)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Assembler {
    pub(super) fn new() -> Self {
        Self {
            markup: Markup::new(&[THOUGHT]),
            calls: Vec::new(),
            reason: None,
            usage: None,
            begun: false,
            done: false,
        }
    }

    /// Takes the data of an event and gives what is new of the answer. Calls of tools wait for [`Assembler::finish`].
    ///
    /// # Errors
    /// What is no chunk, an error that the service reports, and more than any service would send.
    pub(super) fn push(&mut self, data: &str) -> Result<Vec<LlmEvent>, Failure> {
        let data = data.trim();
        if data == DONE {
            self.done = true;
        }
        if data.is_empty() || self.done {
            return Ok(Vec::new());
        }
        let chunk = Chunk::parse(data)?;
        if let Some(usage) = chunk.usage {
            self.usage = Some(Usage {
                prompt_tokens: usage.prompt_tokens.unwrap_or(0),
                completion_tokens: usage.completion_tokens.unwrap_or(0),
            });
        }
        let mut events = Vec::new();
        for choice in chunk.choices.unwrap_or_default() {
            if choice.index.unwrap_or(0) != 0 {
                continue;
            }
            if let Some(delta) = choice.delta.or(choice.message) {
                self.take(delta, &mut events)?;
            }
            if let Some(name) = choice.finish_reason.filter(|name| !name.is_empty()) {
                self.reason = Some(finish_reason(&name));
            }
        }
        self.begun |= self.has_ended();
        Ok(events)
    }

    /// Whether there is anything of the answer yet, be it a thought.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the service has said that the answer is over. Its cost may still follow.
    pub(super) fn has_ended(&self) -> bool {
        self.reason.is_some() || self.done
    }

    /// Whether nothing can follow.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// The service had not said that it is over.
    pub(super) fn finish(&mut self) -> Result<Vec<LlmEvent>, Failure> {
        if !self.has_ended() {
            return Err(Failure::passing("the answer broke off"));
        }
        let mut events: Vec<LlmEvent> =
            self.markup.finish().into_iter().filter_map(spoken).collect();
        let named = self.calls.drain(..).filter(|call| {
            if call.name.is_empty() {
                tracing::warn!(id = call.id, "a call of a tool without a name is left out");
            }
            !call.name.is_empty()
        });
        let before = events.len();
        events.extend(named.map(|call| LlmEvent::ToolCall(call.finish())));
        // There are servers that end with "stop" where they call tools.
        let reason = match (events.len() > before, self.reason) {
            (true, Some(FinishReason::Stop) | None) => FinishReason::ToolCalls,
            (false, Some(FinishReason::ToolCalls)) => FinishReason::Stop,
            (_, reason) => reason.unwrap_or(FinishReason::Stop),
        };
        events.push(LlmEvent::Finished { reason, usage: self.usage });
        Ok(events)
    }

    fn take(&mut self, delta: Delta, events: &mut Vec<LlmEvent>) -> Result<(), Failure> {
        self.begun |= delta.is_thinking();
        // A refusal is said as well as any other answer.
        for text in [delta.text(), delta.refusal.unwrap_or_default()] {
            if !text.is_empty() {
                self.begun = true;
                events.extend(self.markup.push(&text).into_iter().filter_map(spoken));
            }
        }
        for fragment in delta.tool_calls.unwrap_or_default() {
            self.begun = true;
            self.call(fragment)?;
        }
        Ok(())
    }

    fn call(&mut self, fragment: Fragment) -> Result<(), Failure> {
        let function = fragment.function.unwrap_or_default();
        let id = fragment.id.unwrap_or_default();
        let name = function.name.unwrap_or_default();
        let place = self.place(fragment.index, &id, &name).unwrap_or_else(|| {
            let (id, name) = (String::new(), String::new());
            self.calls.push(Call { index: fragment.index, id, name, arguments: String::new() });
            self.calls.len() - 1
        });
        let call = &mut self.calls[place];
        // Servers repeat them, or send them as empty texts, in later fragments.
        if call.id.is_empty() {
            call.id = id;
        }
        if call.name.is_empty() {
            call.name = name;
        }
        match function.arguments {
            serde_json::Value::String(part) => call.arguments.push_str(&part),
            serde_json::Value::Null => {}
            whole => call.arguments.push_str(&whole.to_string()),
        }
        let bytes: usize = self.calls.iter().map(|call| call.arguments.len()).sum();
        if self.calls.len() > MAX_CALLS || bytes > MAX_ARGUMENTS {
            return Err(Failure::passing("more calls of tools than any model makes"));
        }
        Ok(())
    }

    /// Which call a fragment belongs to; `None` for a new one.
    fn place(&self, index: Option<u64>, id: &str, name: &str) -> Option<usize> {
        let other = |call: &Call| !id.is_empty() && !call.id.is_empty() && call.id != id;
        let last = self.calls.len().checked_sub(1)?;
        match index {
            // There are servers that number every call 0; its id then tells them apart.
            Some(_) => self.calls.iter().rposition(|call| call.index == index && !other(call)),
            None if !id.is_empty() => self.calls.iter().rposition(|call| call.id == id),
            None => name.is_empty().then_some(last),
        }
    }
}

impl Call {
    fn finish(self) -> ToolCall {
        let id = match self.id.as_str() {
            "" => format!("call_{:016x}", fastrand::u64(..)),
            _ => self.id,
        };
        ToolCall { id, name: self.name, arguments: self.arguments }
    }
}

fn spoken(part: Part) -> Option<LlmEvent> {
    match part {
        Part::Text(text) => Some(LlmEvent::Text(text)),
        Part::Hidden(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of the data of a stream.
    fn assemble(stream: &[&str]) -> Result<Vec<LlmEvent>, Failure> {
        let mut assembler = Assembler::new();
        let mut events = Vec::new();
        for data in stream {
            events.extend(assembler.push(data)?);
        }
        events.extend(assembler.finish()?);
        Ok(events)
    }

    fn delta(delta: &str) -> String {
        format!(r#"{{"choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#)
    }

    fn calls(fragments: &[&str]) -> Vec<(String, String, String)> {
        let chunks = fragments.iter().map(|calls| delta(&format!(r#"{{"tool_calls":[{calls}]}}"#)));
        let mut chunks: Vec<String> = chunks.collect();
        chunks.push(DONE.into());
        let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
        let mut events = assemble(&chunks).expect("an answer");
        let reason = FinishReason::ToolCalls;
        assert_eq!(events.pop(), Some(LlmEvent::Finished { reason, usage: None }));
        let call = |event| match event {
            LlmEvent::ToolCall(call) => (call.id, call.name, call.arguments),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(call).collect()
    }

    fn text(text: &str) -> LlmEvent {
        LlmEvent::Text(text.into())
    }

    fn finished(reason: FinishReason) -> LlmEvent {
        LlmEvent::Finished { reason, usage: None }
    }

    fn owned(calls: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
        calls.iter().map(|(a, b, c)| ((*a).into(), (*b).into(), (*c).into())).collect()
    }

    #[test]
    fn an_answer_of_openai() {
        let head = r#""id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","usage":null"#;
        let stream = [
            &format!(
                r#"{{{head},"choices":[{{"index":0,"delta":{{"role":"assistant","content":"","refusal":null}},"logprobs":null,"finish_reason":null}}]}}"#
            ),
            &format!(
                r#"{{{head},"choices":[{{"index":0,"delta":{{"content":"Hello"}},"finish_reason":null}}]}}"#
            ),
            &format!(
                r#"{{{head},"choices":[{{"index":0,"delta":{{"content":" there"}},"finish_reason":null}}]}}"#
            ),
            &format!(
                r#"{{{head},"choices":[{{"index":0,"delta":{{}},"finish_reason":"length"}}]}}"#
            ),
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"x":{}}}"#,
            DONE,
        ];
        let usage = Some(Usage { prompt_tokens: 9, completion_tokens: 2 });
        let expected = [
            text("Hello"),
            text(" there"),
            LlmEvent::Finished { reason: FinishReason::Length, usage },
        ];
        assert_eq!(assemble(&stream), Ok(expected.into()));
    }

    #[test]
    fn what_servers_leave_out_or_add() {
        let stream = [
            r#"{}"#,
            "",
            r#"{"choices":null}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":[{"delta":null}]}"#,
            r#"{"choices":[{"delta":{"content":null},"finish_reason":""}],"usage":"none"}"#,
            r#"{"choices":[{"index":1,"delta":{"content":"Not this."}}]}"#,
            r#"{"choices":[{"index":"0","delta":{"content":[{"type":"text","text":"Yes"},{"type":"image"}]}}]}"#,
            r#"{"choices":[{"delta":{"content":".","tool_calls":[]},"finish_reason":"eos"}],"created":"now"}"#,
        ];
        assert_eq!(
            assemble(&stream),
            Ok(vec![text("Yes"), text("."), finished(FinishReason::Stop)])
        );
        let whole = r#"{"choices":[{"message":{"role":"assistant","content":"Yes."},"finish_reason":"stop"}]}"#;
        assert_eq!(assemble(&[whole]), Ok(vec![text("Yes."), finished(FinishReason::Stop)]));
    }

    #[test]
    fn thoughts_are_signs_of_life_and_no_text() {
        let mut assembler = Assembler::new();
        let mut push = |chunk: &str| {
            let events = assembler.push(chunk).expect("a chunk");
            (events, assembler.has_begun())
        };
        assert_eq!(push(&delta(r#"{"role":"assistant","content":""}"#)), (vec![], false));
        assert_eq!(push(&delta(r#"{"reasoning":"Hm"}"#)), (vec![], true));
        assert_eq!(push(&delta(r#"{"content":"<think>Hm"}"#)), (vec![], true));
        assert_eq!(push(&delta(r#"{"content":"!</think>\n\n"}"#)), (vec![], true));
        assert_eq!(push(&delta(r#"{"content":"Yes."}"#)), (vec![text("Yes.")], true));
    }

    #[test]
    fn a_refusal_is_said() {
        let refusal = delta(r#"{"refusal":"I can't."}"#);
        let end = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}"#;
        let expected = vec![text("I can't."), finished(FinishReason::ContentFilter)];
        assert_eq!(assemble(&[&refusal, end]), Ok(expected));
    }

    #[test]
    fn calls_of_openai() {
        let found = calls(&[
            r#"{"index":0,"id":"a","type":"function","function":{"name":"time","arguments":""}}"#,
            r#"{"index":1,"id":"b","type":"function","function":{"name":"rain","arguments":""}}"#,
            r#"{"index":1,"function":{"arguments":"{\"in\":"}}"#,
            r#"{"index":0,"function":{"arguments":"{}"}},{"index":1,"function":{"arguments":"\"Rome\"}"}}"#,
        ]);
        assert_eq!(found, owned(&[("a", "time", "{}"), ("b", "rain", r#"{"in":"Rome"}"#)]));
    }

    #[test]
    fn calls_of_others() {
        // Every call is number 0, and whole.
        let found = calls(&[
            r#"{"index":0,"id":"a","function":{"name":"time","arguments":"{}"}}"#,
            r#"{"index":0,"id":"b","function":{"name":"time","arguments":{"in":"Rome"}}}"#,
        ]);
        assert_eq!(found, owned(&[("a", "time", "{}"), ("b", "time", r#"{"in":"Rome"}"#)]));
        // No numbers; what comes without a name belongs to the last.
        let found = calls(&[
            r#"{"id":"a","function":{"name":"time","arguments":"{"}}"#,
            r#"{"function":{"arguments":"}"}}"#,
            r#"{"id":"b","function":{"name":"rain","arguments":null}}"#,
            r#"{"id":"a","function":{"arguments":" "}}"#,
        ]);
        assert_eq!(found, owned(&[("a", "time", "{} "), ("b", "rain", "")]));
        // Name and id again and again, or empty.
        let found = calls(&[
            r#"{"index":0,"id":"a","function":{"name":"time","arguments":"{"}}"#,
            r#"{"index":0,"id":"a","function":{"name":"time","arguments":"}"}}"#,
            r#"{"index":0,"id":"","function":{"name":"","arguments":" "}}"#,
        ]);
        assert_eq!(found, owned(&[("a", "time", "{} ")]));
        // Neither number nor id: each has one in the end.
        let found = calls(&[
            r#"{"function":{"name":"time","arguments":"{}"}}"#,
            r#"{"function":{"name":"rain","arguments":"{}"}}"#,
        ]);
        assert_eq!(found.len(), 2);
        assert!(found[0].0.starts_with("call_") && found[0].0 != found[1].0);
    }

    #[test]
    fn calls_decide_why_an_answer_ended() {
        let call = delta(r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"time"}}]}"#);
        let nameless = delta(r#"{"tool_calls":[{"index":0,"id":"a"}]}"#);
        let end = |reason: &str| format!(r#"{{"choices":[{{"finish_reason":"{reason}"}}]}}"#);
        let reason = |first: &str, named: &str| {
            let events = assemble(&[first, &end(named)]).expect("an answer");
            match events.last() {
                Some(LlmEvent::Finished { reason, .. }) => *reason,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reason(&call, "stop"), FinishReason::ToolCalls);
        assert_eq!(reason(&call, "function_call"), FinishReason::ToolCalls);
        assert_eq!(reason(&call, "length"), FinishReason::Length);
        assert_eq!(reason(&nameless, "tool_calls"), FinishReason::Stop);
    }

    #[test]
    fn errors_in_the_place_of_an_answer() {
        let reason = |data: &str| {
            let failure = assemble(&[data]).expect_err("an error");
            (failure.reason, failure.permanent)
        };
        let openai =
            r#"{"error":{"message":"Too much","type":"server_error","param":null,"code":null}}"#;
        assert_eq!(reason(openai), ("server_error: Too much".into(), false));
        let quota = r#"{"error":{"message":"Pay","type":"insufficient_quota","code":"insufficient_quota"}}"#;
        assert_eq!(reason(quota), ("insufficient_quota: Pay".into(), true));
        assert_eq!(reason(r#"{"error":"out of memory"}"#), ("out of memory".into(), false));
        let vllm = r#"{"object":"error","message":"no","type":"invalid_request_error","code":400}"#;
        assert_eq!(reason(vllm), ("invalid_request_error 400: no".into(), true));
        assert!(reason(r#"{"choices":["#).0.starts_with("not JSON: "));
        assert!(reason("[1]").0.starts_with("not an answer: "));
        assert_eq!(reason(&delta(r#"{"content":"Yes"}"#)), ("the answer broke off".into(), false));
    }

    #[test]
    fn a_service_that_calls_without_end_is_stopped() {
        let mut assembler = Assembler::new();
        let part = "x".repeat(100_000);
        let chunk = delta(&format!(
            r#"{{"tool_calls":[{{"index":0,"id":"a","function":{{"name":"f","arguments":"{part}"}}}}]}}"#
        ));
        let failed = (0..20).find_map(|_| assembler.push(&chunk).err());
        assert!(failed.is_some_and(|failure| failure.reason.contains("more calls")));
        let mut assembler = Assembler::new();
        let failed = (0..200).find_map(|i| {
            let call = format!(r#"{{"tool_calls":[{{"index":{i},"function":{{"name":"f"}}}}]}}"#);
            assembler.push(&delta(&call)).err()
        });
        assert!(failed.is_some_and(|failure| failure.reason.contains("more calls")));
    }
}
