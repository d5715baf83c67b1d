//! What the language model is told of the conversation: what the user said, and what he heard.

use crate::llm::{Message, ToolCall};

/// Answers a call of a tool that has not returned yet.
const RUNNING: &str = r#"{"status":"still running"}"#;

/// The conversation so far.
#[derive(Debug, Clone)]
pub struct Context {
    messages: Vec<Message>,
    max_chars: usize,
}

/// A part of an answer: text, and the tools called after it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Part {
    /// Text that was heard.
    pub text: String,
    /// Calls, with their results where they are there.
    pub calls: Vec<(ToolCall, Option<String>)>,
}

impl Context {
    /// A conversation that begins with `system`, of about `max_chars` bytes at most.
    pub fn new(system: &str, max_chars: usize) -> Self {
        let mut messages = Vec::new();
        if !system.is_empty() {
            messages.push(Message::System { content: system.into() });
        }
        Self { messages, max_chars }
    }

    /// The messages, oldest first.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The user said something. What he said in several turns without an answer is one message.
    pub fn user(&mut self, text: &str) {
        match self.messages.last_mut() {
            Some(Message::User { content }) => {
                content.push(' ');
                content.push_str(text);
            }
            _ => self.messages.push(Message::User { content: text.into() }),
        }
        self.forget();
    }

    /// The user heard an answer.
    pub fn assistant(&mut self, parts: impl IntoIterator<Item = Part>) {
        for Part { text, calls } in parts {
            if text.is_empty() && calls.is_empty() {
                continue;
            }
            let tool_calls = calls.iter().map(|(call, _)| call.clone()).collect();
            self.messages.push(Message::Assistant { content: text, tool_calls });
            for (call, result) in calls {
                let content = result.unwrap_or_else(|| RUNNING.into());
                self.messages.push(Message::Tool { call_id: call.id, content });
            }
        }
        self.forget();
    }

    /// A tool returned after its answer was over.
    pub fn tool_result(&mut self, id: &str, result: String) {
        for message in self.messages.iter_mut().rev() {
            if let Message::Tool { call_id, content } = message
                && call_id == id
                && content == RUNNING
            {
                *content = result;
                return;
            }
        }
    }

    /// Forgets the oldest turns, whole, until the rest is short enough; never the last.
    fn forget(&mut self) {
        let first = usize::from(matches!(self.messages.first(), Some(Message::System { .. })));
        while self.messages.iter().map(length).sum::<usize>() > self.max_chars {
            let rest = self.messages.iter().enumerate().skip(first + 1);
            let mut turns = rest.filter(|(_, message)| matches!(message, Message::User { .. }));
            let Some((next, _)) = turns.next() else { return };
            self.messages.drain(first..next);
        }
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::System { content } | Message::User { content } => content.len(),
        Message::Tool { content, .. } => content.len(),
        Message::Assistant { content, tool_calls } => {
            let calls = tool_calls.iter().map(|call| call.name.len() + call.arguments.len());
            content.len() + calls.sum::<usize>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> ToolCall {
        ToolCall { id: id.into(), name: "weather".into(), arguments: "{}".into() }
    }

    fn text(text: &str) -> Part {
        Part { text: text.into(), calls: Vec::new() }
    }

    #[test]
    fn turns_without_an_answer_are_one_message() {
        let mut context = Context::new("", 1000);
        context.user("What is");
        context.assistant([text("")]);
        context.user("the time?");
        let content = "What is the time?".into();
        assert_eq!(context.messages(), [Message::User { content }]);
    }

    #[test]
    fn a_late_result_takes_the_place_that_was_kept_for_it() {
        let mut context = Context::new("", 1000);
        context.user("Weather?");
        context.assistant([Part { text: String::new(), calls: vec![(call("a"), None)] }]);
        let result = |context: &Context| match context.messages().last() {
            Some(Message::Tool { call_id, content }) if call_id == "a" => content.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(result(&context), RUNNING);
        context.tool_result("b", "no".into());
        assert_eq!(result(&context), RUNNING);
        context.tool_result("a", "rain".into());
        context.tool_result("a", "sun".into());
        assert_eq!(result(&context), "rain");
    }

    #[test]
    fn old_turns_are_forgotten_whole_and_the_system_message_never() {
        let mut context = Context::new("Be brief.", 60);
        for turn in 0..10 {
            context.user(&format!("Question number {turn}?"));
            context.assistant([Part { text: String::new(), calls: vec![(call("a"), None)] }]);
            context.assistant([text("Yes.")]);
        }
        let messages = context.messages();
        assert!(matches!(messages[0], Message::System { .. }));
        assert!(matches!(&messages[1], Message::User { content } if content.ends_with("9?")));
        assert_eq!(messages.len(), 5);
    }
}
