// The page: what the user does, what the server says, and what is shown of both.

import { Microphone } from "/microphone.js";
import { Speaker } from "/speaker.js";
import { Socket } from "/socket.js";
import { Transcript, indexOfByte } from "/transcript.js";
import { draw, legend, segments, tabulate } from "/latency.js";
import { loudness, rms } from "/meter.js";

// Samples a second of the speech, until the server says otherwise.
const USUAL_RATE = 24_000;
// What a hello says where there is no microphone.
const NO_MICROPHONE_RATE = 16_000;
// Turns and events that are kept.
const KEPT = 500;
const STATES = {
  off: "Ready when you are",
  connecting: "Connecting…",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking…",
  speaking: "Speaking",
  holding: "Holding: was that an interruption?",
};

const $ = (id) => document.getElementById(id);
const session = { id: null, state: "off", connection: "off", muted: false, running: false, reason: "" };
const counters = { connections: 0, framesSent: 0, framesReceived: 0, turns: 0 };
const events = [];
const reports = [];

const transcript = new Transcript($("turns"), $("empty"), $("announcer"));
const speaker = new Speaker(
  (message) => socket?.send(message),
  ({ type, epoch, samples, time }) => {
    if (type !== "played") note(`speaker ${type}`, { epoch, samples, time });
  },
);
let microphone;
let socket;
// Counts beginnings and ends, so that a beginning knows whether it is still wanted.
let runs = 0;

// --- what the user does ---

async function begin() {
  const run = ++runs;
  session.running = true;
  session.reason = "";
  $("problems").replaceChildren();
  connection("waiting", "connecting");
  state("connecting");
  controls();
  // Within the click, so that the browser lets it sound.
  const sounds = speaker.open(USUAL_RATE).then(() => "", (error) => `there is no sound here: ${error.message}`);
  const heard = new Microphone(frame, (reason) => withoutMicrophone(reason));
  const silence = await heard.open().then(() => "", refusal);
  const deaf = await sounds;
  // The user may have ended it meanwhile.
  if (run !== runs) return heard.close();
  if (deaf) {
    heard.close();
    return end(deaf, "refused");
  }
  microphone = silence ? undefined : heard;
  if (silence) withoutMicrophone(silence);
  microphone?.mute(session.muted);
  socket = new Socket({ open: hello, message: told, audio: sound, waiting: again, over: (reason) => end(reason, "refused") });
  socket.open();
  controls();
}

function end(reason = "", shown = "off") {
  runs++;
  session.running = false;
  session.reason = reason;
  socket?.close();
  microphone?.close();
  speaker.close();
  socket = microphone = undefined;
  connection(shown, reason || "not connected");
  if (reason) transcript.aside(reason);
  state("off");
  controls();
}

function interrupt() {
  if (socket?.isOpen) socket.send({ type: "interrupt" });
}

function mute(muted) {
  session.muted = muted;
  microphone?.mute(muted);
  socket?.send({ type: "mute", muted: muted || !microphone });
  controls();
}

function withoutMicrophone(reason) {
  microphone?.close();
  microphone = undefined;
  socket?.send({ type: "mute", muted: true });
  problem(`${reason}. You can type.`);
  controls();
}

function refusal(error) {
  if (error.name === "NotAllowedError") return "The microphone was not allowed";
  if (error.name === "NotFoundError") return "There is no microphone";
  return `The microphone cannot be used: ${error.message}`;
}

function frame(buffer) {
  if (socket?.sendAudio(buffer)) counters.framesSent++;
}

// --- what the server says ---

function hello() {
  counters.connections++;
  socket.send({ type: "hello", sample_rate: microphone?.sampleRate ?? NO_MICROPHONE_RATE });
  if (session.muted || !microphone) socket.send({ type: "mute", muted: true });
}

function sound(message) {
  counters.framesReceived++;
  speaker.audio(message);
}

const handlers = {
  ready({ session: id, sample_rate, providers }) {
    if (counters.connections > 1) transcript.aside("connected again: a new conversation");
    transcript.newConversation();
    session.id = id;
    connection("open", "connected");
    state("listening");
    for (const part of ["stt", "llm", "tts"]) $(`provider-${part}`).textContent = providers[part];
    $("providers").hidden = false;
    $("notice").textContent = providers.notice;
    $("notice").hidden = !providers.notice;
    controls();
    speaker.open(sample_rate).catch((error) => end(`there is no sound here: ${error.message}`, "refused"));
  },
  audio_end: ({ epoch, samples }) => speaker.command("end", epoch, samples),
  pause: ({ epoch }) => order("pause", epoch),
  resume: ({ epoch }) => order("resume", epoch),
  flush: ({ epoch }) => order("flush", epoch),
  state: (message) => state(message.state),
  user: (message) => transcript.user(message),
  assistant: (message) => transcript.assistant(message),
  tool: ({ name, done }) => transcript.aside(done ? `${name} is done` : `uses ${name}…`),
  turn(report) {
    counters.turns++;
    keep(reports, report);
    draw($("latency"), reports);
    percentiles();
  },
  problem({ stage, message, permanent }) {
    note("problem", { stage, message, permanent });
    problem(`${stage}: ${message}${permanent ? "" : " (it goes on)"}`);
  },
};

function told(message) {
  handlers[message.type]?.(message);
}

function order(type, epoch) {
  note(type, { epoch });
  speaker.command(type, epoch);
}

function again(seconds, reason) {
  speaker.silence();
  connection("waiting", `${reason}; again in ${seconds.toFixed(1)} s`);
  if (session.state !== "connecting") transcript.aside(reason);
  state("connecting");
  controls();
}

// --- what is shown ---

function state(name) {
  if (session.state !== name) note("state", { state: name });
  session.state = name;
  $("now").dataset.state = name;
  $("state").textContent = STATES[name] ?? name;
}

function connection(name, text) {
  session.connection = name;
  $("connection").dataset.connection = name;
  $("connection").textContent = text;
}

function controls() {
  const isOpen = session.connection === "open";
  $("begin").textContent = session.running ? "End" : "Begin";
  $("mute").disabled = !session.running || !microphone;
  $("mute").textContent = session.muted ? "Unmute" : "Mute";
  $("mute").setAttribute("aria-pressed", session.muted);
  $("interrupt").disabled = !isOpen;
  for (const control of $("say").elements) control.disabled = !isOpen;
}

function problem(text) {
  if ($("problems").lastChild?.firstChild.textContent === text) return;
  const line = document.createElement("p");
  const words = document.createElement("span");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "Dismiss";
  close.onclick = () => line.remove();
  line.append(words, close);
  $("problems").append(line);
  while ($("problems").children.length > 3) $("problems").firstChild.remove();
}

async function percentiles() {
  try {
    const stats = await (await fetch("/stats")).json();
    $("percentiles").hidden = !tabulate($("percentiles").tBodies[0], stats.stages);
  } catch {
    // The server is gone for a moment; the next turn asks again.
  }
}

function animate() {
  const into = loudness(rms(microphone?.analyser));
  const out = loudness(rms(speaker.analyser));
  $("level-in").style.transform = `scaleX(${session.muted ? 0 : into})`;
  $("level-out").style.transform = `scaleX(${out})`;
  const level = session.state === "speaking" ? out : session.state === "thinking" ? 0 : into;
  $("halo").style.transform = `scale(${1 + 0.6 * level})`;
  const parts = [`${speaker.underruns} gaps in the playing`];
  if (socket?.dropped) parts.push(`${socket.dropped} frames the network did not take`);
  $("counters").textContent = session.running ? parts.join(" · ") : "";
  requestAnimationFrame(animate);
}

// --- keys and clicks ---

$("begin").onclick = () => {
  // So that the space bar, from now on, interrupts.
  $("conversation").focus();
  if (session.running) end();
  else begin();
};
$("mute").onclick = () => mute(!session.muted);
$("interrupt").onclick = interrupt;
$("say").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !socket?.isOpen) return;
  socket.send({ type: "text", text });
  $("text").value = "";
};
document.addEventListener("keydown", (event) => {
  const isSpace = event.key === " " && !event.target.closest("button, input, a");
  if (event.repeat || !(event.key === "Escape" || isSpace)) return;
  if (isSpace) event.preventDefault();
  interrupt();
});

// --- for tests, and the curious: read only ---

function note(type, data) {
  keep(events, { type, at: performance.now(), ...data });
}

function keep(list, item) {
  list.push(item);
  if (list.length > KEPT) list.shift();
}

window.mk = Object.freeze({
  get session() {
    return { ...session };
  },
  get counters() {
    const { underruns, dropped, latency } = speaker;
    return { ...counters, underruns, dropped, latency, notSent: socket?.dropped ?? 0 };
  },
  get transcript() {
    return transcript.entries.map(({ item, announced, ...entry }) => entry);
  },
  get turns() {
    return structuredClone(reports);
  },
  // What the page was told and did, with `performance.now()` of each.
  get events() {
    return structuredClone(events);
  },
  get outputRms() {
    return rms(speaker.analyser);
  },
  get inputRms() {
    return rms(microphone?.analyser);
  },
  indexOfByte,
  segments,
});

legend($("legend"));
draw($("latency"), reports);
animate();
