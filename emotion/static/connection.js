/** The WebSocket: frames out, results in, and back again after it broke. */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;
const FULL_WAIT_MS = 5000;
const SILENCE_MS = 10000; // frames are out and nothing came back: the line is dead
const IN_FLIGHT = 2;
const CLOSED = { ABUSE: 1008, FULL: 1013 };

/**
 * What the server says (docs/emotion_server.md).
 * @typedef {{ en: string, ko: string }} Words
 * @typedef {{ frame_bytes: number, frame_pixels: number, frames_per_s: number, connections: number }} Limits
 * @typedef {{ ready: boolean, classes: string[], labels: Record<string, string[]>, limits: Limits }} Hello
 * @typedef {object} Face
 * @property {number} id
 * @property {[left: number, top: number, width: number, height: number]} box in pixels of the picture
 * @property {string} label
 * @property {number[]} probabilities
 * @property {number[]} smoothed
 * @typedef {{ frame: number, dropped: number, width: number, height: number, faces: Face[] }} Answer
 * @typedef {{ code: string, frame: number, message?: Words }} Refusal
 *
 * @typedef {{ bitmap: ImageBitmap, takenMs: number, release: () => void }} Entry of a frame that was sent
 * @typedef {"closed" | "connecting" | "live" | "waiting" | "refused"} State waiting: tries again in waitS;
 *   refused: does not
 * @typedef {{ state: State, waitS?: number, isFull?: boolean }} Change
 * @typedef {object} Listeners
 * @property {(change: Change) => void} state
 * @property {(hello: Hello) => void} hello
 * @property {(result: Answer & { sent: Entry }) => void} result with what `send` was given
 * @property {(refusal: Refusal) => void} refused one frame
 */

export class Connection {
  /**
   * @param {URL} address
   * @param {Listeners} listeners
   */
  constructor(address, listeners) {
    this.address = address;
    this.listeners = listeners;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {Hello | null} */
    this.hello = null;
    /** @type {State} */
    this.state = "closed";
    this.isWanted = false;
    this.timer = 0;
    this.watch = 0;
    this.failures = 0;
    this.leastGapMs = 0; // until the server has said how many frames it takes
    this.count = 0;
    /** @type {Map<number, Entry>} */
    this.inFlight = new Map();
    this.lastSentMs = -Infinity;
    this.lastHeardMs = -Infinity;
  }

  /** @param {Change} change */
  setState(change) {
    this.state = change.state;
    this.listeners.state(change);
  }

  open() {
    this.isWanted = true;
    clearTimeout(this.timer);
    if (this.socket) return;
    this.count = 0;
    this.inFlight.clear();
    this.lastSentMs = -Infinity;
    this.lastHeardMs = performance.now();
    this.setState({ state: "connecting" });
    const socket = new WebSocket(this.address.href);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onmessage = (event) => {
      if (this.socket === socket) this.hear(event.data);
    };
    socket.onclose = (event) => {
      if (this.socket === socket) this.closed(event.code);
    };
    clearInterval(this.watch);
    this.watch = setInterval(() => this.checkSilence(), 1000);
  }

  close() {
    this.isWanted = false;
    clearTimeout(this.timer);
    this.drop();
    this.setState({ state: "closed" });
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

  /** @param {number} code of the socket's end; 0: nothing was heard */
  closed(code) {
    this.drop();
    if (!this.isWanted) return;
    if (code === CLOSED.ABUSE) {
      this.isWanted = false;
      this.setState({ state: "refused" });
      return;
    }
    // A little of chance keeps a hundred pages from coming back at the same moment.
    const backoff = Math.min(FIRST_WAIT_MS * 2 ** this.failures, LONGEST_WAIT_MS);
    const waitMs = (code === CLOSED.FULL ? Math.max(backoff, FULL_WAIT_MS) : backoff) * (0.8 + 0.4 * Math.random());
    this.failures += 1;
    this.setState({ state: "waiting", waitS: Math.max(1, Math.round(waitMs / 1000)), isFull: code === CLOSED.FULL });
    this.timer = setTimeout(() => this.open(), waitMs);
  }

  checkSilence() {
    const isWaiting = this.state === "connecting" || this.inFlight.size > 0;
    if (isWaiting && performance.now() - this.lastHeardMs > SILENCE_MS) this.closed(0);
  }

  /** What the server takes; known once it has said hello. */
  get limits() {
    if (!this.hello) throw new Error("the server has said nothing yet");
    return this.hello.limits;
  }

  get canSend() {
    return (
      this.state === "live" && this.inFlight.size < IN_FLIGHT && performance.now() - this.lastSentMs >= this.leastGapMs
    );
  }

  /**
   * Sends a picture, while the connection is live.
   * @param {Blob} blob
   * @param {Entry} entry comes back with its result; its `release()` is called where none will come
   */
  send(blob, entry) {
    this.count += 1;
    this.lastSentMs = performance.now();
    if (!this.inFlight.size) this.lastHeardMs = this.lastSentMs; // silence counts from the first unanswered frame
    this.inFlight.set(this.count, entry);
    this.socket?.send(blob);
  }

  /** @param {unknown} data */
  hear(data) {
    if (typeof data !== "string") return;
    /** @type {({ type: "hello" } & Hello) | ({ type: "result" } & Answer) | ({ type: "error" } & Refusal)} */
    const message = JSON.parse(data);
    this.lastHeardMs = performance.now();
    if (message.type === "hello") {
      this.hello = message;
      this.failures = 0;
      this.leastGapMs = 1000 / message.limits.frames_per_s;
      this.setState({ state: "live" });
      this.listeners.hello(message);
      return;
    }
    const entry = this.take(message.frame);
    if (message.type === "result") {
      if (entry) this.listeners.result({ ...message, sent: entry });
    } else if (message.type === "error") {
      entry?.release();
      this.listeners.refused(message);
    }
  }

  /**
   * The entry of a frame; those before it were dropped for it and go.
   * @param {number} frame
   */
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
