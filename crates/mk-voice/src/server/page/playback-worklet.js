// Plays one answer (an epoch) at a time, and knows to the sample what it has played of it.

// A stop and a start are ramps of this many seconds, against clicks.
const FADE = 0.005;
// What must be there before the playing begins, in seconds: more after each time that it was not enough.
const PREBUFFER = 0.08;
const PREBUFFER_MOST = 0.4;
// Reports a second while it plays.
const REPORTS = 10;

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.prebuffer = PREBUFFER;
    this.before = { epoch: -1, position: 0 };
    this.isClosed = false;
    this.begin(-1);
    this.port.onmessage = ({ data }) => this[data.type](data);
  }

  // Forgets what there was, and waits for an epoch's audio.
  begin(epoch) {
    if (this.epoch !== undefined) this.before = { epoch: this.epoch, position: this.position };
    if (this.underruns === 0) this.prebuffer = Math.max(PREBUFFER, this.prebuffer * 0.8);
    this.epoch = epoch;
    this.chunks = [];
    this.taken = 0; // of the first chunk
    this.queued = 0;
    this.position = 0; // samples of the epoch that were put out
    this.total = null; // samples that it has, once that is known
    this.underruns = 0;
    this.state = "filling"; // or "playing", "paused", "over"
    this.fading = null; // what comes after a fade: "pause" or "flush"
    this.gain = 0;
    this.last = 0;
    this.sinceReport = 0;
  }

  audio({ epoch, first, samples }) {
    if (epoch > this.epoch) this.begin(epoch);
    const behind = this.position + this.queued - first;
    if (epoch < this.epoch || this.state === "over" || behind >= samples.length) {
      this.port.postMessage({ type: "dropped" });
      return;
    }
    if (behind < 0) this.push(new Int16Array(-behind));
    this.push(behind > 0 ? samples.subarray(behind) : samples);
  }

  push(samples) {
    this.chunks.push(samples);
    this.queued += samples.length;
  }

  end({ epoch, samples }) {
    if (epoch > this.epoch) this.begin(epoch);
    if (epoch === this.epoch) this.total = samples;
  }

  pause({ epoch }) {
    if (epoch > this.epoch) this.begin(epoch);
    if (epoch !== this.epoch || this.state === "over") return;
    if (this.state === "playing") this.fading = "pause";
    else if (this.state === "filling") this.stop("pause");
  }

  resume({ epoch }) {
    if (epoch !== this.epoch) return;
    if (this.fading === "pause") this.fading = null;
    if (this.state === "paused") this.state = "filling";
  }

  flush({ epoch }) {
    if (epoch > this.epoch) this.begin(epoch);
    if (epoch < this.epoch) {
      const samples = epoch === this.before.epoch ? this.before.position : 0;
      this.port.postMessage({ type: "flushed", epoch, samples, time: currentTime });
    } else if (this.state === "playing") {
      this.fading = "flush";
    } else {
      this.stop("flush");
    }
  }

  // There will be nothing to play any more.
  close() {
    this.isClosed = true;
  }

  // It is silent now.
  stop(why) {
    this.fading = null;
    this.gain = 0;
    this.last = 0;
    if (why === "flush") {
      this.state = "over";
      this.chunks = [];
      this.queued = 0;
    } else {
      this.state = "paused";
    }
    this.tell(why === "flush" ? "flushed" : "paused");
  }

  tell(type) {
    this.sinceReport = 0;
    const { epoch, position: samples, underruns, queued } = this;
    this.port.postMessage({ type, epoch, samples, underruns, queued, time: currentTime });
  }

  // The next sample, or null where there is none.
  take() {
    if (this.queued === 0) return null;
    const sample = this.chunks[0][this.taken++];
    if (this.taken === this.chunks[0].length) {
      this.chunks.shift();
      this.taken = 0;
    }
    this.queued--;
    this.position++;
    return sample / 32768;
  }

  process(_, [output]) {
    const speaker = output[0];
    const isComplete = this.total !== null && this.position + this.queued >= this.total;
    const isEnough = this.queued >= this.prebuffer * sampleRate || isComplete;
    if (this.state === "filling" && isEnough && (this.queued > 0 || isComplete)) {
      this.state = "playing";
      this.sinceReport = sampleRate; // the first is reported at once
    }
    const step = 1 / (FADE * sampleRate);
    for (let i = 0; i < speaker.length; i++) {
      const sample = this.state === "playing" ? this.take() : null;
      if (sample === null) {
        if (this.state === "playing") this.ranOut();
        this.last *= 0.95;
        speaker[i] = this.last;
        continue;
      }
      this.gain = this.fading ? Math.max(0, this.gain - step) : Math.min(1, this.gain + step);
      this.last = sample * this.gain;
      speaker[i] = this.last;
      if (this.fading && this.gain === 0) this.stop(this.fading);
    }
    if (this.state === "playing") {
      this.sinceReport += speaker.length;
      if (this.sinceReport >= sampleRate / REPORTS) this.tell("played");
    }
    return !this.isClosed;
  }

  ranOut() {
    if (this.fading) {
      this.stop(this.fading);
    } else if (this.total !== null && this.position >= this.total) {
      this.state = "over";
      this.tell("ended");
    } else {
      this.state = "filling";
      this.gain = 0;
      this.underruns++;
      this.prebuffer = Math.min(PREBUFFER_MOST, this.prebuffer * 1.5);
      this.tell("played");
    }
  }
}

registerProcessor("playback", Playback);
