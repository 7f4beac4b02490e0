/** The WebSocket: frames out, results in, and back again after it broke. */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;
const FULL_WAIT_MS = 5000;
const SILENCE_MS = 10000; // frames are out and nothing came back: the line is dead
const IN_FLIGHT = 2;
const SLOWEST_MS = 1000;
const CLOSED = { ABUSE: 1008, FULL: 1013 };

/**
 * Events: "state" {state, waitS, isFull}, "hello", "result" (.sent: what `send` was given), "refused" (one frame).
 * States: closed, connecting, live, waiting (tries again in waitS), refused (does not).
 */
export class Connection extends EventTarget {
  constructor(address) {
    super();
    this.address = address;
    this.socket = null;
    this.hello = null;
    this.state = "closed";
    this.failures = 0;
    this.leastGapMs = 0; // grows when the server asks for fewer frames
    this.forget();
  }

  forget() {
    this.count = 0;
    this.inFlight = new Map();
    this.lastSentMs = -Infinity;
    this.lastHeardMs = performance.now();
  }

  emit(name, detail) {
    this.dispatchEvent(Object.assign(new Event(name), { detail }));
  }

  setState(state, more = {}) {
    this.state = state;
    this.emit("state", { state, ...more });
  }

  open() {
    this.wanted = true;
    clearTimeout(this.timer);
    if (this.socket) return;
    this.forget();
    this.setState("connecting");
    const socket = new WebSocket(this.address);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onmessage = (event) => this.socket === socket && this.hear(event.data);
    socket.onclose = (event) => this.socket === socket && this.closed(event.code);
    clearInterval(this.watch);
    this.watch = setInterval(() => this.checkSilence(), 1000);
  }

  close() {
    this.wanted = false;
    clearTimeout(this.timer);
    this.drop();
    this.setState("closed");
  }

  /** Lets the socket go without waiting for its end. */
  drop() {
    clearInterval(this.watch);
    const { socket } = this;
    this.socket = null;
    for (const entry of this.inFlight.values()) entry.release();
    this.inFlight.clear();
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  closed(code) {
    this.drop();
    if (!this.wanted) return;
    if (code === CLOSED.ABUSE) {
      this.wanted = false;
      this.setState("refused");
      return;
    }
    // A little of chance keeps a hundred pages from coming back at the same moment.
    const backoff = Math.min(FIRST_WAIT_MS * 2 ** this.failures, LONGEST_WAIT_MS);
    const waitMs = (code === CLOSED.FULL ? Math.max(backoff, FULL_WAIT_MS) : backoff) * (0.8 + 0.4 * Math.random());
    this.failures += 1;
    this.setState("waiting", { waitS: Math.max(1, Math.round(waitMs / 1000)), isFull: code === CLOSED.FULL });
    this.timer = setTimeout(() => this.open(), waitMs);
  }

  checkSilence() {
    const isWaiting = this.state === "connecting" || this.inFlight.size > 0;
    if (isWaiting && performance.now() - this.lastHeardMs > SILENCE_MS) this.closed(0);
  }

  /** Whether the server has made this page send more slowly than it may. */
  get isSlowed() {
    return this.state === "live" && this.leastGapMs > 2000 / this.hello.limits.frames_per_s;
  }

  get canSend() {
    return (
      this.state === "live" &&
      this.inFlight.size < IN_FLIGHT &&
      performance.now() - this.lastSentMs >= this.leastGapMs
    );
  }

  /** Sends a picture; `entry` comes back with its result, its `release()` is called where none will come. */
  send(blob, entry) {
    this.count += 1;
    this.lastSentMs = performance.now();
    if (!this.inFlight.size) this.lastHeardMs = this.lastSentMs; // silence counts from the first unanswered frame
    this.inFlight.set(this.count, entry);
    this.socket.send(blob);
  }

  hear(data) {
    if (typeof data !== "string") return;
    const message = JSON.parse(data);
    this.lastHeardMs = performance.now();
    if (message.type === "hello") {
      this.hello = message;
      this.failures = 0;
      this.leastGapMs = 1000 / message.limits.frames_per_s;
      this.setState("live");
      this.emit("hello", message);
      return;
    }
    const entry = this.take(message.frame);
    if (message.type === "result") {
      this.leastGapMs = Math.max(this.leastGapMs * 0.98, 1000 / this.hello.limits.frames_per_s);
      if (entry) this.emit("result", { ...message, sent: entry });
    } else if (message.type === "error") {
      entry?.release();
      if (message.code === "rate") this.leastGapMs = Math.min(Math.max(this.leastGapMs * 1.5, 50), SLOWEST_MS);
      this.emit("refused", message);
    }
  }

  /** The entry of a frame; those before it were dropped for it and go. */
  take(frame) {
    const entry = this.inFlight.get(frame) ?? null;
    for (const [number, other] of this.inFlight) {
      if (number > frame) continue;
      if (number < frame) other.release();
      this.inFlight.delete(number);
    }
    return entry;
  }
}
