//! The loop of one conversation: waits for whatever happens next, asks the machine, does what it says.

use std::collections::VecDeque;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};

use super::Parts;
use super::ears::Ears;
use super::pacer::{Due, Pacer};
use super::tape::Tape;
use crate::llm::{LlmError, LlmEvent, LlmStream, ToolCall};
use crate::protocol::{ClientMessage, Providers, ServerMessage, State};
use crate::stt::{SttError, SttEvent, SttStream};
use crate::tts::{TtsError, TtsEvent, Utterance};
use crate::turn::{Action, Event, Machine};

/// How long a client may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// Tools that run at the same time in one conversation.
const TOOLS_AT_ONCE: usize = 8;

/// A conversation, from hello to the end.
pub(super) async fn run(
    parts: Arc<Parts>,
    name: String,
    recording: Option<PathBuf>,
    mut input: mpsc::Receiver<ClientMessage>,
    output: mpsc::Sender<ServerMessage>,
) {
    let Ok(Some(ClientMessage::Hello { sample_rate })) = timeout(HELLO, input.recv()).await else {
        tracing::info!("the client did not say hello");
        return;
    };
    match Conversation::new(&parts, recording, sample_rate, output.clone()) {
        Ok(mut conversation) => {
            let end = conversation.talk(&name, &mut input).await;
            conversation.tape.finish().await;
            tracing::info!(dropped = conversation.ears.dropped, "the conversation ended: {end}");
        }
        Err(message) => {
            let problem =
                ServerMessage::Problem { stage: "session".into(), message, permanent: true };
            let _ = output.send_timeout(problem, parts.options.slow_client).await;
        }
    }
}

struct Conversation {
    parts: Arc<Parts>,
    started: Instant,
    machine: Machine,
    ears: Ears,
    stt: Option<SttStream>,
    llm: Option<(u32, LlmStream)>,
    utterance: Option<Speaking>,
    tools: ToolRuns,
    pacer: Pacer,
    tape: Tape,
    output: mpsc::Sender<ServerMessage>,
}

/// The utterance that is being made.
struct Speaking {
    epoch: u32,
    number: usize,
    /// `None` once the text is complete.
    text: Option<mpsc::Sender<String>>,
    events: mpsc::Receiver<TtsEvent>,
}

struct ToolRuns {
    results: mpsc::Receiver<(String, String)>,
    sender: mpsc::Sender<(String, String)>,
    at_once: Arc<Semaphore>,
}

impl Conversation {
    fn new(
        parts: &Arc<Parts>,
        recording: Option<PathBuf>,
        sample_rate: u32,
        output: mpsc::Sender<ServerMessage>,
    ) -> Result<Self, String> {
        let options = &parts.options;
        let stt = parts.stt.listen();
        let ears =
            Ears::new(sample_rate, &options.vad, stt.input.clone()).map_err(|e| e.to_string())?;
        parts.llm.warm_up();
        let rate = parts.tts.sample_rate();
        let tape = match recording {
            Some(path) => Tape::new(&path, sample_rate, rate)?,
            None => Tape::off(),
        };
        let (sender, results) = mpsc::channel(TOOLS_AT_ONCE);
        Ok(Self {
            parts: Arc::clone(parts),
            started: Instant::now(),
            machine: Machine::new(options.turn.clone(), parts.tools.specs(), rate),
            ears,
            stt: Some(stt),
            llm: None,
            utterance: None,
            tools: ToolRuns { results, sender, at_once: Arc::new(Semaphore::new(TOOLS_AT_ONCE)) },
            pacer: Pacer::new(rate, options.lead),
            tape,
            output,
        })
    }

    /// Until the client goes. Returns why it ended.
    async fn talk(
        &mut self,
        name: &str,
        input: &mut mpsc::Receiver<ClientMessage>,
    ) -> &'static str {
        let parts = Arc::clone(&self.parts);
        let (stt, llm, tts) = (parts.stt.name(), parts.llm.name(), parts.tts.name());
        let providers = Providers { stt, llm, tts, notice: parts.options.notice.clone() };
        let sample_rate = parts.tts.sample_rate();
        if !self.tell(ServerMessage::Ready { session: name.into(), sample_rate, providers }).await {
            return "the client did not read";
        }
        let mut events = VecDeque::from([Event::Start]);
        loop {
            while let Some(event) = events.pop_front() {
                let actions = self.machine.step(self.now(), event);
                if !self.perform(actions).await {
                    return "the client did not read";
                }
            }
            while let Some(due) = self.pacer.next(self.now()) {
                match self.send(due).await {
                    Some(event) => events.extend(event),
                    None => return "the client did not read",
                }
            }
            self.tape.settle(self.now());
            if !events.is_empty() {
                continue;
            }
            let deadline =
                [self.machine.deadline(), self.pacer.deadline()].into_iter().flatten().min();
            tokio::select! {
                message = input.recv() => match message {
                    Some(message) => events.extend(self.heard(message)),
                    None => return "the client left",
                },
                event = recognised(&mut self.stt) => events.push_back(Event::Stt(event)),
                (generation, event) = thought(&mut self.llm) => {
                    events.push_back(Event::Llm { generation, event });
                }
                (epoch, utterance, event) = spoken(&mut self.utterance) => {
                    events.push_back(Event::Tts { epoch, utterance, event });
                }
                Some((call_id, result)) = self.tools.results.recv() => {
                    events.push_back(Event::Tool { call_id, result });
                }
                () = wait_until(deadline.map(|at| self.started + at)) => events.push_back(Event::Tick),
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// What a client's message means.
    fn heard(&mut self, message: ClientMessage) -> Vec<Event> {
        match message {
            ClientMessage::Audio(samples) => {
                let now = self.now();
                self.tape.user(&samples, now);
                let speaking = matches!(self.machine.state(), State::Speaking | State::Holding);
                let deaf = speaking && !self.parts.options.turn.barge_in.enabled;
                self.ears.hear(&samples, deaf, now)
            }
            ClientMessage::Played { epoch, samples, underruns } => {
                vec![Event::Played { epoch, samples, underruns }]
            }
            ClientMessage::Flushed { epoch, samples } => vec![Event::Flushed { epoch, samples }],
            ClientMessage::Text { text } => vec![Event::Text(text)],
            ClientMessage::Interrupt => vec![Event::Interrupt],
            // While the microphone is off no audio comes, which is all there is to it.
            ClientMessage::Mute { .. } | ClientMessage::Hello { .. } => Vec::new(),
        }
    }

    /// Does what the machine says. Whether the client still reads.
    async fn perform(&mut self, actions: Vec<Action>) -> bool {
        let now = self.now();
        for action in actions {
            let told = match action {
                Action::Ask { generation, request } => {
                    self.llm = Some((generation, self.parts.llm.answer(request)));
                    continue;
                }
                Action::StopAsking { generation } => {
                    self.llm.take_if(|(live, _)| *live == generation);
                    continue;
                }
                Action::RunTool(call) => {
                    self.run_tool(call);
                    continue;
                }
                Action::Speak { epoch, utterance: number } => {
                    let Utterance { text, events } = self.parts.tts.speak();
                    self.utterance = Some(Speaking { epoch, number, text: Some(text), events });
                    continue;
                }
                Action::SpeakText(text) => {
                    let sender =
                        self.utterance.as_ref().and_then(|speaking| speaking.text.as_ref());
                    // There is room for all pieces of an utterance; where nobody takes them, its events say why.
                    if let Some(Err(error)) = sender.map(|sender| sender.try_send(text)) {
                        tracing::debug!("text of an utterance that is over: {error}");
                    }
                    continue;
                }
                Action::SpeakEnd => {
                    if let Some(speaking) = &mut self.utterance {
                        speaking.text = None;
                    }
                    continue;
                }
                Action::StopSpeaking { epoch } => {
                    self.utterance.take_if(|speaking| speaking.epoch == epoch);
                    continue;
                }
                Action::Play(frame) => {
                    self.pacer.push(frame);
                    continue;
                }
                Action::PlayEnd { epoch, samples } => {
                    self.pacer.end(epoch, samples);
                    continue;
                }
                Action::Report(report) => {
                    tracing::info!(
                        turn = report.turn,
                        interrupted = report.interrupted,
                        failed = report.failed,
                        stages = ?report.stages,
                        "a turn is over"
                    );
                    continue;
                }
                Action::Pause { epoch } => {
                    self.pacer.pause(now);
                    self.tape.pause(now);
                    ServerMessage::Pause { epoch }
                }
                Action::Resume { epoch } => {
                    self.pacer.resume(now);
                    self.tape.resume(now);
                    ServerMessage::Resume { epoch }
                }
                Action::Flush { epoch } => {
                    self.pacer.flush();
                    self.tape.flush(now);
                    ServerMessage::Flush { epoch }
                }
                Action::Tell(message) => message,
            };
            self.note(&told);
            if !self.tell(told).await {
                return false;
            }
        }
        true
    }

    /// Sends what is due; `None` where the client does not read.
    async fn send(&mut self, due: Due) -> Option<Option<Event>> {
        match due {
            Due::Frame(frame, at) => {
                let (epoch, samples) =
                    (frame.epoch, frame.first_sample + frame.samples.len() as u64);
                self.tape.assistant(frame.clone(), at);
                let sent = self.tell(ServerMessage::Audio(frame)).await;
                sent.then_some(Some(Event::Sent { epoch, samples }))
            }
            Due::End(epoch, samples) => {
                self.tell(ServerMessage::AudioEnd { epoch, samples }).await.then_some(None)
            }
        }
    }

    /// Whether the client still reads.
    async fn tell(&mut self, message: ServerMessage) -> bool {
        self.output.send_timeout(message, self.parts.options.slow_client).await.is_ok()
    }

    /// Writes down what a recording's reader will want to know.
    fn note(&mut self, message: &ServerMessage) {
        if let ServerMessage::Problem { stage, message, .. } = message {
            tracing::warn!(stage, "{message}");
        }
        let running = matches!(message, ServerMessage::Assistant { done: false, .. });
        if !running && let Ok(event) = serde_json::to_value(message) {
            self.tape.event(self.now(), event);
        }
    }

    /// Calls a tool. It runs to its end even if the conversation does not last so long.
    fn run_tool(&self, call: ToolCall) {
        let tools = self.parts.tools.clone();
        let (sender, at_once) = (self.tools.sender.clone(), Arc::clone(&self.tools.at_once));
        tokio::spawn(async move {
            let _permit = at_once.acquire().await;
            let result = tools.call(&call).await;
            let _ = sender.send((call.id, result)).await;
        });
    }
}

async fn recognised(stt: &mut Option<SttStream>) -> SttEvent {
    let Some(stream) = stt else { return pending().await };
    let event = stream.events.recv().await.unwrap_or_else(|| {
        let (recogniser, reason) = ("the recogniser".into(), "it ended".into());
        SttEvent::Failed(SttError { recogniser, reason })
    });
    if matches!(event, SttEvent::Failed(_)) {
        *stt = None;
    }
    event
}

async fn thought(llm: &mut Option<(u32, LlmStream)>) -> (u32, LlmEvent) {
    let Some((generation, stream)) = llm else { return pending().await };
    let generation = *generation;
    let event = stream.events.recv().await.unwrap_or_else(|| {
        let (model, reason) = ("the language model".into(), "the answer broke off".into());
        LlmEvent::Failed(LlmError { model, reason, permanent: false })
    });
    if matches!(event, LlmEvent::Finished { .. } | LlmEvent::Failed(_)) {
        *llm = None;
    }
    (generation, event)
}

async fn spoken(utterance: &mut Option<Speaking>) -> (u32, usize, TtsEvent) {
    let Some(speaking) = utterance else { return pending().await };
    let (epoch, number) = (speaking.epoch, speaking.number);
    let event = speaking.events.recv().await.unwrap_or_else(|| {
        let (voice, reason) = ("the voice".into(), "the speech broke off".into());
        TtsEvent::Failed(TtsError { voice, reason })
    });
    if matches!(event, TtsEvent::Ended { .. } | TtsEvent::Failed(_)) {
        *utterance = None;
    }
    (epoch, number, event)
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
