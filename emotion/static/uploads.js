/** A picture or video of the user's: sent, analysed, shown with its faces and a time line. */

import { onNextFrame } from "./camera.js";
import { indexOfLargest } from "./drawing.js";
import { inside, pen } from "./elements.js";
import { colourNumbers } from "./palette.js";
import { t } from "./texts.js";

/**
 * @import { Face, Words } from "./connection.js"
 *
 * @typedef {{ time_s: number, faces: Face[] }} Frame of a video, analysed
 * @typedef {{ width: number, height: number, classes: string[] }} Analysed
 * @typedef {Analysed & { kind: "image", faces: Face[] }} PictureResult
 * @typedef {Analysed & { kind: "video", duration_s: number, frames: Frame[] }} VideoResult
 * @typedef {PictureResult | VideoResult} Result
 */

const LANE_PX = 14;
const LANE_GAP_PX = 3;
const MAX_LANES = 6;
// Five frames a second are analysed; one that is shown for longer stands still, and so do its faces.
const LONGEST_GLIDE_S = 0.3;

export class UploadError extends Error {
  /**
   * @param {string} code
   * @param {Words | null} message as the server says it, or null where it was not reached
   */
  constructor(code, message) {
    super(code);
    this.code = code;
    this.words = message;
  }
}

/**
 * Sends a file to the server.
 * @param {File} file
 * @param {(share: number | null) => void} onProgress called with 0 to 1 while it is sent, then with null while it
 *   is analysed
 * @returns {{ promise: Promise<Result>, cancel: () => void }}
 */
export function analyseFile(file, onProgress) {
  const request = new XMLHttpRequest();
  const promise = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    request.upload.onload = () => onProgress(null);
    request.onerror = () => reject(new UploadError("network", null));
    request.onabort = () => reject(new UploadError("cancelled", null));
    request.onload = () => {
      let answer = null;
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        // An answer that is no JSON comes from a proxy, not from the server.
      }
      if (request.status === 200 && answer) resolve(answer);
      else reject(new UploadError(answer?.error?.code ?? "network", answer?.error?.message ?? null));
    };
  });
  const form = new FormData();
  form.append("file", file);
  request.open("POST", "api/predict");
  request.send(form);
  return { promise, cancel: () => request.abort() };
}

/** @param {number} seconds */
export function clock(seconds) {
  const whole = Math.floor(Math.max(seconds, 0));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/**
 * The analysed frame that is shown at a time: the last one that is not after it.
 * @param {Frame[]} frames
 * @param {number} timeS
 */
export function frameAt(frames, timeS) {
  let [low, high] = [0, frames.length - 1];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (frames[middle].time_s <= timeS + 1e-3) low = middle;
    else high = middle - 1;
  }
  return frames[low] ?? null;
}

/**
 * The faces at a time: their boxes move evenly from one analysed frame to the next, unless that comes much later;
 * their shares do not.
 * @param {Frame[]} frames
 * @param {number} timeS
 * @returns {Face[]}
 */
export function facesAt(frames, timeS) {
  const frame = frameAt(frames, timeS);
  if (!frame) return [];
  /** @type {Frame | undefined} */
  const next = frames[frames.indexOf(frame) + 1];
  const gapS = next ? next.time_s - frame.time_s : 0;
  const part = gapS > 0 && gapS <= LONGEST_GLIDE_S ? Math.min(Math.max((timeS - frame.time_s) / gapS, 0), 1) : 0;
  return frame.faces.map((face) => {
    const later = next?.faces.find((other) => other.id === face.id);
    if (!later || part === 0) return face;
    const [left, top, width, height] = face.box.map((edge, k) => edge + part * (later.box[k] - edge));
    return { ...face, box: [left, top, width, height] };
  });
}

/** Plays an analysed video on the stage. */
export class Player {
  /**
   * @param {object} parts
   * @param {HTMLVideoElement} parts.video
   * @param {HTMLCanvasElement} parts.strip
   * @param {HTMLInputElement} parts.seek
   * @param {HTMLElement} parts.output the time in words
   * @param {HTMLButtonElement} parts.play
   * @param {(picture: HTMLVideoElement | null, faces: Face[], result: VideoResult) => void} parts.onFrame draws
   */
  constructor({ video, strip, seek, play, output, onFrame }) {
    this.video = video;
    this.strip = strip;
    this.seek = seek;
    this.button = play;
    this.output = output;
    this.onFrame = onFrame;
    this.url = "";
    /** @type {VideoResult | null} */
    this.result = null;
    this.isPlayable = false;
    this.button.addEventListener("click", () => this.toggle());
    this.seek.addEventListener("input", () => this.goTo(Number(this.seek.value)));
    for (const name of ["play", "pause", "ended"]) video.addEventListener(name, () => this.showState());
    video.addEventListener("seeked", () => this.show(video.currentTime));
    video.addEventListener("play", () => this.follow());
  }

  /**
   * Shows a result; resolves to whether the browser can play the file itself.
   * @param {File} file
   * @param {VideoResult} result
   */
  async open(file, result) {
    this.result = result;
    this.seek.max = String(result.duration_s);
    this.seek.step = String(Math.min(0.1, Math.max(0.01, result.duration_s / 500)));
    this.seek.value = "0";
    this.url = URL.createObjectURL(file);
    this.isPlayable = await new Promise((done) => {
      this.video.onloadeddata = () => done(this.video.videoWidth > 0);
      this.video.onerror = () => done(false);
      this.video.src = this.url;
      this.video.load();
    });
    if (this.result !== result) return false; // closed meanwhile
    this.button.disabled = !this.isPlayable;
    this.drawStrip();
    this.showState();
    this.show(0);
    return this.isPlayable;
  }

  close() {
    if (!this.result) return;
    this.result = null;
    this.video.onloadeddata = this.video.onerror = null;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
    URL.revokeObjectURL(this.url);
  }

  toggle() {
    if (!this.isPlayable) return;
    if (this.video.paused) this.video.play();
    else this.video.pause();
  }

  /** @param {number} timeS */
  goTo(timeS) {
    if (this.isPlayable) this.video.currentTime = timeS;
    else this.show(timeS);
  }

  follow() {
    onNextFrame(this.video, () => {
      if (!this.result || this.video.paused) return;
      this.show(this.video.currentTime);
      this.follow();
    });
  }

  /** @param {number} timeS */
  show(timeS) {
    if (!this.result) return;
    const { frames, duration_s: durationS } = this.result;
    this.seek.value = String(timeS);
    const text = `${clock(timeS)} / ${clock(durationS)}`;
    if (this.output.textContent !== text) {
      this.output.textContent = text;
      this.seek.setAttribute("aria-valuetext", text);
    }
    this.onFrame(this.isPlayable ? this.video : null, facesAt(frames, timeS), this.result);
  }

  showState() {
    const isPlaying = !this.video.paused && !this.video.ended;
    this.button.setAttribute("aria-label", t(isPlaying ? "pause" : "play"));
    inside(this.button, "use").setAttribute("href", isPlaying ? "#i-pause" : "#i-play");
  }

  /** A lane for each face: the colour of its strongest expression, paler where it is less sure. */
  drawStrip() {
    if (!this.result) return;
    const { frames, classes, duration_s: durationS } = this.result;
    /** @type {Map<number, number>} */
    const counts = new Map();
    for (const frame of frames) for (const face of frame.faces) counts.set(face.id, (counts.get(face.id) ?? 0) + 1);
    const longest = [...counts].sort((a, b) => b[1] - a[1]).slice(0, MAX_LANES);
    const lanes = longest.map(([id]) => id).sort((a, b) => a - b);
    const height = Math.max(lanes.length, 1) * (LANE_PX + LANE_GAP_PX) + LANE_GAP_PX;
    const width = this.strip.clientWidth;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.strip.style.height = `${height}px`;
    [this.strip.width, this.strip.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const context = pen(this.strip);
    context.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const colours = colourNumbers(classes).map((n) => style.getPropertyValue(`--emotion-${n}`).trim());
    frames.forEach((frame, index) => {
      const endS = frames[index + 1]?.time_s ?? durationS;
      const left = (width * frame.time_s) / durationS;
      const right = (width * endS) / durationS;
      for (const face of frame.faces) {
        const lane = lanes.indexOf(face.id);
        if (lane < 0 || !face.smoothed.length) continue;
        const best = indexOfLargest(face.smoothed);
        context.globalAlpha = 0.25 + 0.75 * face.smoothed[best];
        context.fillStyle = colours[best];
        context.fillRect(left, LANE_GAP_PX + lane * (LANE_PX + LANE_GAP_PX), Math.max(right - left + 0.3, 1), LANE_PX);
      }
    });
  }
}
