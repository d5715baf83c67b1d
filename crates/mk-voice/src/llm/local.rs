//! Qwen3 as the language model: the decoder of [`mk_model`], in this process.

mod pool;
mod prompt;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use mk_model::generate::{TextOptions, generate};
use mk_model::text::{ChatTemplate, Tokenizer};
use mk_model::{Checkpoint, DecodeOptions, Finish, Input, Model, Readout, Sampling, Sequence};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::pool::{Kept, Pool};
use super::markup::{Markup, Part, Span, THOUGHT, TOOL_CALL};
use super::{FinishReason, Llm, LlmError, LlmEvent, LlmRequest, LlmStream, Usage};

/// Events that may wait for whoever reads an answer; then the model has to.
const WAITING_EVENTS: usize = 64;
/// Tokens of a prompt that are computed before it is looked whether anyone still wants the answer.
const STRETCH: usize = 128;
/// Tokens that end a turn of a chat, where the model's own list of ends does not have them.
const ENDS: [&str; 2] = ["<|im_end|>", "<|endoftext|>"];
/// What is between markers in an answer.
const SPANS: &[Span] = &[THOUGHT, TOOL_CALL];

/// How to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalOptions {
    /// Tokens of an answer at most, thoughts included.
    pub max_tokens: usize,
    /// How tokens are chosen. If `None`: as the checkpoint suggests, with another seed for each answer.
    pub sampling: Option<Sampling>,
    /// Answers that are made at once; others wait their turn. 0 counts as 1.
    pub at_once: usize,
    /// Conversations whose state is kept, so that their next answer begins sooner. 0 counts as 1.
    pub kept: usize,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { max_tokens: 512, sampling: None, at_once: 2, kept: 4 }
    }
}

/// A language model of this process.
///
/// It does not think before it speaks, where its chat template can say so; what it thinks all the same is left out of the
/// answer. Tools are offered as the template does it, and calls are found where the model puts them between `<tool_call>`
/// and `</tool_call>`, as Qwen3 does.
///
/// What a conversation shares with one before is not computed again: a later turn costs what is new in it.
#[derive(Clone)]
pub struct LocalLlm {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    model: Model,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    options: LocalOptions,
    suggested: Sampling,
    stop_ids: Vec<u32>,
    pool: Pool,
    turns: Arc<Semaphore>,
}

impl LocalLlm {
    /// A language model of a checkpoint that is loaded: its tokenizer, its chat template, and how it is to be sampled, are
    /// read from the checkpoint's folder.
    ///
    /// # Errors
    /// No tokenizer or chat template, or broken ones; a tokenizer that does not fit the model.
    pub fn new(
        model: Model,
        checkpoint: &Checkpoint,
        options: LocalOptions,
    ) -> mk_model::Result<Self> {
        let dir = checkpoint.dir();
        let tokenizer = Tokenizer::from_dir(dir)?;
        tokenizer.check_fits(model.config())?;
        let mut stop_ids = model.eos_token_ids().to_vec();
        stop_ids.extend(ENDS.iter().filter_map(|end| tokenizer.id(end)));
        let folder = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
        let inner = Inner {
            name: format!("mk-model ({folder})"),
            template: ChatTemplate::from_dir(dir)?,
            suggested: Sampling::from(checkpoint.generation()),
            stop_ids,
            pool: Pool::new(options.kept),
            turns: Arc::new(Semaphore::new(options.at_once.clamp(1, Semaphore::MAX_PERMITS))),
            model,
            tokenizer,
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for LocalLlm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { name, options, .. } = &*self.inner;
        f.debug_struct("LocalLlm").field("name", name).field("options", options).finish()
    }
}

impl Llm for LocalLlm {
    fn name(&self) -> String {
        self.inner.name.clone()
    }

    fn answer(&self, request: LlmRequest) -> LlmStream {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = inner.answer(request, &sender) => {}
            }
        });
        LlmStream { events, task: AbortOnDropHandle::new(task) }
    }
}

impl Inner {
    /// Makes an answer in a thread for blocking work, and says in any case how it ended.
    async fn answer(self: Arc<Self>, request: LlmRequest, events: &mpsc::Sender<LlmEvent>) {
        // It is never closed.
        let Ok(turn) = Arc::clone(&self.turns).acquire_owned().await else { return };
        let unwanted = CancellationToken::new();
        let _unwanted = unwanted.clone().drop_guard();
        let listener = Listener { events: events.clone(), unwanted };
        let inner = Arc::clone(&self);
        let made = spawn_blocking(move || {
            let made = inner.make(&request, &listener);
            drop(turn);
            made
        });
        let made = made.await.unwrap_or_else(|_| Err("the model panicked".into()));
        if let Err(reason) = made {
            tracing::warn!(model = self.name, reason, "no answer");
            let error = LlmError { model: self.name.clone(), reason, permanent: true };
            // Nobody may be there to be told.
            let _ = events.send(LlmEvent::Failed(error)).await;
        }
    }

    fn make(&self, request: &LlmRequest, listener: &Listener) -> Result<(), String> {
        let made = self.try_make(request, listener);
        made.map_err(|error| error.to_string())
    }

    fn try_make(&self, request: &LlmRequest, listener: &Listener) -> mk_model::Result<()> {
        let prompt = prompt::render(&self.template, request)?;
        let ids = self.tokenizer.encode(&prompt)?;
        let mut kept = match self.pool.take(&ids) {
            Some(kept) => kept,
            None => Kept::new(self.model.sequence()?),
        };
        let made = match prefill(&mut kept.sequence, &ids, listener) {
            Ok(true) => self.speak(&mut kept.sequence, &prompt, &ids, listener),
            Ok(false) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        // Whatever happened, what is in the sequence is right as far as it goes.
        kept.hold(ids, made.as_deref().unwrap_or_default());
        self.pool.put(kept);
        made.map(|_| ())
    }

    /// Makes the answer, and gives its tokens.
    fn speak(
        &self,
        sequence: &mut Sequence,
        prompt: &str,
        ids: &[u32],
        listener: &Listener,
    ) -> mk_model::Result<Vec<u32>> {
        let mut answer = Answer { markup: Markup::new(SPANS), called: false, listener };
        // There are models that always think: their prompt begins the thought.
        if prompt.trim_end().ends_with(THOUGHT.begin) {
            answer.markup.push(THOUGHT.begin);
        }
        let decode = DecodeOptions {
            max_tokens: self.options.max_tokens,
            stop_ids: Some(self.stop_ids.clone()),
            readout: Readout::NOTHING,
        };
        let seed = || Sampling { seed: fastrand::u64(..), ..self.suggested.clone() };
        let sampling = self.options.sampling.clone().unwrap_or_else(seed);
        let options = TextOptions { sampling, decode, stop: Vec::new() };
        let made = generate(sequence, &self.tokenizer, &options, |piece| answer.push(piece))?;
        if made.finish != Finish::Cancelled {
            let usage =
                Usage { prompt_tokens: ids.len() as u64, completion_tokens: made.ids.len() as u64 };
            answer.finish(made.finish, usage);
        }
        Ok(made.ids)
    }
}

/// Makes `ids` the sequence, all but the last of them computed; `false` if nobody wants that any more.
fn prefill(sequence: &mut Sequence, ids: &[u32], listener: &Listener) -> mk_model::Result<bool> {
    let known = sequence.set_prompt(ids)?;
    sequence.truncate(known);
    for stretch in ids[known..ids.len() - 1].chunks(STRETCH) {
        if listener.is_gone() {
            return Ok(false);
        }
        sequence.extend(Input::Tokens(stretch), Readout::NOTHING)?;
    }
    sequence.set_prompt(ids)?;
    Ok(true)
}

/// Whoever an answer is for.
struct Listener {
    events: mpsc::Sender<LlmEvent>,
    /// Cancelled when the answer is dropped.
    unwanted: CancellationToken,
}

impl Listener {
    fn is_gone(&self) -> bool {
        self.unwanted.is_cancelled() || self.events.is_closed()
    }

    fn tell(&self, event: LlmEvent) -> ControlFlow<()> {
        match self.events.blocking_send(event) {
            Ok(()) if !self.is_gone() => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    }
}

/// What a model says, taken apart.
struct Answer<'a> {
    markup: Markup,
    called: bool,
    listener: &'a Listener,
}

impl Answer<'_> {
    fn push(&mut self, piece: &str) -> ControlFlow<()> {
        let parts = self.markup.push(piece);
        self.tell(parts)?;
        if self.listener.is_gone() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn tell(&mut self, parts: Vec<Part>) -> ControlFlow<()> {
        for part in parts {
            let event = match part {
                Part::Text(text) => LlmEvent::Text(text),
                Part::Hidden(TOOL_CALL, call) => {
                    self.called = true;
                    LlmEvent::ToolCall(prompt::call(&call))
                }
                Part::Hidden(..) => continue,
            };
            self.listener.tell(event)?;
        }
        ControlFlow::Continue(())
    }

    fn finish(mut self, finish: Finish, usage: Usage) {
        let parts = self.markup.finish();
        if self.tell(parts).is_continue() {
            let reason = match finish {
                Finish::Length | Finish::Context => FinishReason::Length,
                _ if self.called => FinishReason::ToolCalls,
                _ => FinishReason::Stop,
            };
            // Where nobody listens any more, nobody misses it.
            let _ = self.listener.tell(LlmEvent::Finished { reason, usage: Some(usage) });
        }
    }
}

#[cfg(test)]
mod tests;
