// The user's microphone, in frames of 20 ms.

export class Microphone {
  // `onframe` gets an ArrayBuffer of 16-bit samples, `onlost` why there will be no more.
  constructor(onframe, onlost) {
    this.onframe = onframe;
    this.onlost = onlost;
    this.muted = false;
  }

  // Asks the user for it. Fails where there is none, or it is not allowed.
  async open() {
    if (!navigator.mediaDevices) {
      throw new Error("a browser gives the microphone only to pages of this machine or of https");
    }
    const wishes = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
    // The context runs at the machine's own rate: not every browser resamples a microphone.
    this.context = new AudioContext();
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: wishes });
      await this.context.audioWorklet.addModule("/capture-worklet.js");
      await this.context.resume();
    } catch (error) {
      this.close();
      throw error;
    }
    const source = this.context.createMediaStreamSource(this.stream);
    this.analyser = new AnalyserNode(this.context, { fftSize: 1024 });
    const capture = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => {
      if (!this.muted) this.onframe(data);
    };
    source.connect(this.analyser);
    source.connect(capture);
    const [track] = this.stream.getAudioTracks();
    track.onended = () => this.onlost("the microphone was taken away");
  }

  // Samples a second of its frames.
  get sampleRate() {
    return this.context.sampleRate;
  }

  mute(muted) {
    this.muted = muted;
    for (const track of this.stream?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.context?.close();
    this.stream = this.context = this.analyser = undefined;
  }
}
