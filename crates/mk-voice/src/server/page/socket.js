// The connection to the server, made again whenever it is lost.

// Milliseconds before the first further try, and the most.
const FIRST = 500;
const MOST = 10_000;
// Bytes that may wait to be sent: two seconds of a microphone at 48,000 samples a second.
const MOST_WAITING = 192_000;
// Close codes that a further try would meet again: the conversation ended; this page did what it may not.
const FINAL = new Set([1000, 1002, 1003, 1008, 1009]);

export class Socket {
  // `on` has `open()`, `message(object)`, `audio(ArrayBuffer)`, `waiting(seconds, reason)` and `over(reason, code)`.
  constructor(on) {
    this.on = on;
    this.tries = 0;
    this.dropped = 0;
    this.whenOnline = () => this.retryNow();
  }

  open() {
    window.addEventListener("online", this.whenOnline);
    this.connect();
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.on.open();
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return this.on.audio(data);
      // The server has taken the conversation on.
      this.tries = 0;
      this.on.message(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.socket) this.lost(code, reason || `the connection broke off (${code})`);
    };
  }

  lost(code, reason) {
    this.socket = undefined;
    if (FINAL.has(code)) {
      this.close();
      this.on.over(reason, code);
      return;
    }
    // Spread out, so that many pages do not come back at the same moment.
    const delay = Math.min(MOST, FIRST * 2 ** this.tries) * (0.75 + 0.5 * Math.random());
    this.tries++;
    this.timer = setTimeout(() => this.connect(), delay);
    this.on.waiting(delay / 1000, reason);
  }

  retryNow() {
    if (this.socket || !this.timer) return;
    clearTimeout(this.timer);
    this.connect();
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  send(message) {
    if (this.isOpen) this.socket.send(JSON.stringify(message));
  }

  // Audio that the network does not take is old before it arrives: it is dropped.
  sendAudio(buffer) {
    if (!this.isOpen) return false;
    if (this.socket.bufferedAmount > MOST_WAITING) {
      this.dropped++;
      return false;
    }
    this.socket.send(buffer);
    return true;
  }

  close() {
    window.removeEventListener("online", this.whenOnline);
    clearTimeout(this.timer);
    this.timer = undefined;
    const socket = this.socket;
    this.socket = undefined;
    socket?.close(1000);
  }
}
