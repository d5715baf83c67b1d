//! The world around a machine. It does what the machine says, and checks while doing so what must hold at any time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mk_voice::llm::{FinishReason, LlmEvent, LlmRequest, Message, ToolCall};
use mk_voice::protocol::{ServerMessage, State, TurnReport};
use mk_voice::stt::SttEvent;
use mk_voice::tts::{Mark, TtsError, TtsEvent};
use mk_voice::turn::{Action, Event, MAX_PIECES, Machine, TurnOptions};

/// Samples a second: one a millisecond.
pub const RATE: u32 = 1000;
/// Samples of a character.
pub const CHARACTER: u64 = 50;
const TICK: Duration = Duration::from_millis(10);

pub struct World {
    pub machine: Machine,
    pub now: Duration,
    /// What is asked and not answered.
    pub asking: Option<u32>,
    pub requests: Vec<LlmRequest>,
    pub tools: Vec<ToolCall>,
    pub told: Vec<ServerMessage>,
    pub reports: Vec<TurnReport>,
    pub actions: Vec<Action>,
    pub client: Client,
    pub voice: Voice,
    /// Ends of spoken words, in samples of the epoch.
    words: HashMap<u32, Vec<(u64, String)>>,
    queue: VecDeque<Event>,
    busy: bool,
}

/// What plays.
#[derive(Default)]
pub struct Client {
    pub epoch: u32,
    pub received: u64,
    pub played: u64,
    pub paused: bool,
    flushed: Option<u32>,
    reported: Duration,
    /// It never says what it plays.
    pub mute: bool,
    /// What was played of each epoch in the end.
    pub heard: HashMap<u32, u64>,
}

/// What speaks.
#[derive(Default)]
pub struct Voice {
    live: Option<Utterance>,
    /// It gives nothing.
    pub stalled: bool,
    /// It fails with the next utterance.
    pub failing: bool,
}

struct Utterance {
    epoch: u32,
    number: usize,
    first_sample: u64,
    text: String,
    pieces: usize,
    made: usize,
    complete: bool,
    marks: Vec<Mark>,
}

impl World {
    pub fn new(options: TurnOptions) -> Self {
        Self {
            machine: Machine::new(options, Arc::default(), RATE),
            now: Duration::ZERO,
            asking: None,
            requests: Vec::new(),
            tools: Vec::new(),
            told: Vec::new(),
            reports: Vec::new(),
            actions: Vec::new(),
            client: Client::default(),
            voice: Voice::default(),
            words: HashMap::new(),
            queue: VecDeque::new(),
            busy: false,
        }
    }

    pub fn event(&mut self, event: Event) {
        self.queue.push_back(event);
        if std::mem::replace(&mut self.busy, true) {
            return;
        }
        while let Some(event) = self.queue.pop_front() {
            for action in self.machine.step(self.now, event) {
                self.perform(action);
            }
        }
        self.busy = false;
    }

    pub fn stt(&mut self, event: SttEvent) {
        self.event(Event::Stt(event));
    }

    /// The user says something and ends.
    pub fn user(&mut self, text: &str) {
        self.stt(SttEvent::TurnStarted);
        self.stt(SttEvent::Partial { text: text.into() });
        self.stt(SttEvent::TurnEnded { text: text.into(), speech_end: None });
    }

    /// The request that is being answered gives something.
    pub fn llm(&mut self, event: LlmEvent) {
        let Some(generation) = self.asking else { return };
        if matches!(event, LlmEvent::Finished { .. } | LlmEvent::Failed(_)) {
            self.asking = None;
        }
        self.event(Event::Llm { generation, event });
    }

    /// The whole answer to the request.
    pub fn answer(&mut self, text: &str) {
        for delta in text.split_inclusive(' ') {
            self.llm(LlmEvent::Text(delta.into()));
        }
        self.llm(LlmEvent::Finished { reason: FinishReason::Stop, usage: None });
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += TICK;
            self.speak();
            self.play();
            if self.machine.deadline().is_some_and(|at| at <= self.now) {
                self.event(Event::Tick);
                let late = self.machine.deadline().is_some_and(|at| at <= self.now);
                assert!(!late, "a deadline is left behind");
            }
        }
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    /// Words of an epoch that were played whole.
    pub fn words_heard(&self, epoch: u32) -> Vec<&str> {
        let played = self.client.heard.get(&epoch).copied().unwrap_or(0);
        let words = self.words.get(&epoch).map(Vec::as_slice).unwrap_or_default();
        words.iter().filter(|(end, _)| *end <= played).map(|(_, word)| word.as_str()).collect()
    }

    pub fn last_assistant(&self) -> Option<&str> {
        self.machine.context().iter().rev().find_map(|message| match message {
            Message::Assistant { content, .. } => Some(content.as_str()),
            _ => None,
        })
    }

    pub fn done(&self, wanted: impl Fn(&Action) -> bool) -> usize {
        self.actions.iter().filter(|action| wanted(action)).count()
    }

    pub fn state(&self) -> State {
        self.machine.state()
    }

    fn speak(&mut self) {
        if self.voice.stalled {
            return;
        }
        let Some(live) = &mut self.voice.live else { return };
        let (epoch, utterance) = (live.epoch, live.number);
        if std::mem::take(&mut self.voice.failing) {
            self.voice.live = None;
            let error = TtsError { voice: "test".into(), reason: "it broke".into() };
            self.event(Event::Tts { epoch, utterance, event: TtsEvent::Failed(error) });
            return;
        }
        // A character each tick: faster than it is heard.
        let Some(next) = live.text[live.made..].chars().next() else {
            if live.complete {
                let marks = std::mem::take(&mut live.marks);
                self.voice.live = None;
                self.event(Event::Tts { epoch, utterance, event: TtsEvent::Ended { marks } });
            }
            return;
        };
        live.made += next.len_utf8();
        let (said, rest) = live.text.split_at(live.made);
        let sample = said.chars().count() as u64 * CHARACTER;
        let mark = Mark { sample, byte: live.made };
        if !next.is_whitespace() && rest.chars().next().is_none_or(char::is_whitespace) {
            let word = said.split_whitespace().last().unwrap_or_default();
            let end = live.first_sample + sample;
            self.words.entry(epoch).or_default().push((end, word.into()));
            live.marks.push(mark);
        }
        let samples = vec![1; CHARACTER as usize];
        self.event(Event::Tts { epoch, utterance, event: TtsEvent::Audio { samples, mark } });
    }

    fn play(&mut self) {
        let client = &mut self.client;
        if client.paused {
            return;
        }
        let step = TICK.as_millis() as u64;
        let before = client.played;
        client.played = (client.played + step).min(client.received);
        client.heard.insert(client.epoch, client.played);
        let news = client.played > before;
        let whole = client.played == client.received;
        let due = self.now >= client.reported + Duration::from_millis(100);
        if news && !client.mute && (due || whole) {
            client.reported = self.now;
            let (epoch, samples) = (client.epoch, client.played);
            self.event(Event::Played { epoch, samples, underruns: 0 });
        }
    }

    fn perform(&mut self, action: Action) {
        self.actions.push(action.clone());
        match action {
            Action::Ask { generation, request } => {
                assert_eq!(self.asking, None, "two requests at once");
                check_messages(&request.messages);
                self.asking = Some(generation);
                self.requests.push(request);
            }
            Action::StopAsking { generation } => {
                assert_eq!(self.asking.take(), Some(generation), "stopped what is not asked");
            }
            Action::RunTool(call) => self.tools.push(call),
            Action::Speak { epoch, utterance } => {
                assert!(self.voice.live.is_none(), "two utterances at once");
                let first_sample = match self.client.epoch == epoch {
                    true => self.client.received,
                    false => 0,
                };
                self.voice.live = Some(Utterance {
                    epoch,
                    number: utterance,
                    first_sample,
                    text: String::new(),
                    pieces: 0,
                    made: 0,
                    complete: false,
                    marks: Vec::new(),
                });
            }
            Action::SpeakText(text) => {
                let live = self.voice.live.as_mut().expect("text for an utterance");
                assert!(!live.complete, "text after its end");
                live.text.push_str(&text);
                live.pieces += 1;
                assert!(live.pieces <= MAX_PIECES, "more pieces than there is room for");
            }
            Action::SpeakEnd => {
                if let Some(live) = &mut self.voice.live {
                    live.complete = true;
                }
            }
            Action::StopSpeaking { epoch } => {
                self.voice.live.take_if(|live| live.epoch == epoch);
            }
            Action::Play(frame) => {
                let client = &mut self.client;
                assert!(frame.epoch >= client.epoch, "audio of an old answer");
                assert_ne!(client.flushed, Some(frame.epoch), "audio of a flushed answer");
                if frame.epoch > client.epoch {
                    client.epoch = frame.epoch;
                    (client.received, client.played, client.paused) = (0, 0, false);
                }
                assert_eq!(frame.first_sample, client.received, "a gap");
                client.received += frame.samples.len() as u64;
                let (epoch, samples) = (client.epoch, client.received);
                self.event(Event::Sent { epoch, samples });
            }
            Action::PlayEnd { epoch, samples } => {
                assert_eq!((epoch, samples), (self.client.epoch, self.client.received));
            }
            Action::Pause { epoch } => {
                assert_eq!((epoch, self.client.paused), (self.client.epoch, false));
                self.client.paused = true;
            }
            Action::Resume { epoch } => {
                assert_eq!((epoch, self.client.paused), (self.client.epoch, true));
                self.client.paused = false;
            }
            Action::Flush { epoch } => {
                assert_eq!(epoch, self.client.epoch, "flushed what is not played");
                self.client.flushed = Some(epoch);
                self.client.paused = false;
                self.client.received = self.client.played;
                let samples = self.client.played;
                if !self.client.mute {
                    self.event(Event::Flushed { epoch, samples });
                }
            }
            Action::Tell(message) => self.told.push(message),
            Action::Report(report) => self.reports.push(report),
        }
    }
}

/// What OpenAI would refuse: calls without results, results without calls, empty messages.
fn check_messages(messages: &[Message]) {
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        match message {
            Message::Tool { call_id, .. } => {
                let place = open.iter().position(|id| id == call_id);
                open.remove(place.expect("a result without a call"));
            }
            other => {
                assert!(open.is_empty(), "a call without a result");
                match other {
                    Message::Assistant { content, tool_calls } => {
                        assert!(!content.is_empty() || !tool_calls.is_empty(), "an empty message");
                        open.extend(tool_calls.iter().map(|call| call.id.as_str()));
                    }
                    Message::User { content } | Message::System { content } => {
                        assert!(!content.is_empty(), "an empty message");
                    }
                    Message::Tool { .. } => {}
                }
            }
        }
    }
    assert!(matches!(messages.last(), Some(Message::User { .. } | Message::Tool { .. })));
    assert!(open.is_empty(), "a call without a result");
}
