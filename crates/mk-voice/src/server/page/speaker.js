// The sound of the answers: a worklet that plays, and what is said about it.

// Bytes before the samples of a binary message: the epoch (4), the number of the first sample (8).
const HEADER = 12;

export class Speaker {
  // `onreport` gets the messages for the server, `onevent` what tests and people want to know.
  constructor(onreport, onevent) {
    this.onreport = onreport;
    this.onevent = onevent;
    this.dropped = 0;
    this.underruns = 0;
    this.timers = new Set();
    this.early = [];
    this.opened = 0;
  }

  // Makes it ready for a conversation's audio at a rate. Where there was none before, the user must have touched the page.
  async open(sampleRate) {
    this.silence();
    const number = ++this.opened;
    if (this.context?.sampleRate !== sampleRate) {
      this.context?.close();
      this.context = new AudioContext({ sampleRate, latencyHint: "interactive" });
      this.analyser = new AnalyserNode(this.context, { fftSize: 512 });
      this.analyser.connect(this.context.destination);
      this.loaded = this.context.audioWorklet.addModule("/playback-worklet.js");
    }
    await Promise.all([this.loaded, this.context.resume()]);
    if (number !== this.opened) return;
    this.node = new AudioWorkletNode(this.context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => this.report(data);
    this.node.connect(this.analyser);
    for (const message of this.early.splice(0)) this.post(message);
  }

  // What comes before it is ready waits.
  post(message) {
    if (this.node) this.node.port.postMessage(message);
    else this.early.push(message);
  }

  // A binary message of the server.
  audio(message) {
    const header = new DataView(message, 0, HEADER);
    const samples = new Int16Array(message.slice(HEADER));
    const epoch = header.getUint32(0, true);
    const first = Number(header.getBigUint64(4, true));
    this.post({ type: "audio", epoch, first, samples });
  }

  // "end", "pause", "resume" or "flush".
  command(type, epoch, samples) {
    this.post({ type, epoch, samples });
  }

  // Seconds from the worklet to the ear, as far as the browser knows.
  get latency() {
    return this.context?.outputLatency || this.context?.baseLatency || 0;
  }

  report(data) {
    const { type, epoch, samples, underruns } = data;
    if (type === "dropped") {
      this.dropped++;
      return;
    }
    this.onevent(data);
    if (type === "flushed") {
      // What has left the worklet will be heard; nothing else will.
      for (const timer of this.timers) clearTimeout(timer);
      this.timers.clear();
      this.onreport({ type, epoch, samples });
      return;
    }
    this.underruns += Math.max(0, underruns - (this.counted?.epoch === epoch ? this.counted.underruns : 0));
    this.counted = { epoch, underruns };
    // Said when it is heard, not when it is put out.
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      this.onreport({ type: "played", epoch, samples, underruns });
    }, this.latency * 1000);
    this.timers.add(timer);
  }

  // Throws away all there is to play.
  silence() {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    this.node?.port.postMessage({ type: "close" });
    this.node?.disconnect();
    this.node = undefined;
    this.early = [];
    this.counted = undefined;
  }

  close() {
    this.silence();
    this.opened++;
    this.context?.close();
    this.context = this.analyser = undefined;
  }
}
