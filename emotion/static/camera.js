/** The webcam: devices, opening, and one frame after the other at the camera's own pace. */

import { pen } from "./elements.js";

/** @typedef {"insecure" | "denied" | "missing" | "busy" | "failed"} CameraCode */

export class CameraError extends Error {
  /**
   * @param {CameraCode} code
   * @param {string} [reason] the browser's own words
   */
  constructor(code, reason = "") {
    super(reason || code);
    this.code = code;
  }
}

/** @type {Record<string, CameraCode>} */
const CODES = {
  NotAllowedError: "denied",
  SecurityError: "denied",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
  AbortError: "busy",
};

export class Camera {
  /**
   * @param {HTMLVideoElement} video plays the camera
   * @param {() => void} onEnd called when the camera goes away by itself
   */
  constructor(video, onEnd) {
    this.video = video;
    this.onEnd = onEnd;
    /** @type {MediaStream | null} */
    this.stream = null;
    /** @type {"user" | "environment"} */
    this.facing = "user";
  }

  static get isAllowedHere() {
    return Boolean(navigator.mediaDevices?.getUserMedia);
  }

  /** The cameras; without permission browsers give no names and maybe only one. */
  static async list() {
    if (!navigator.mediaDevices?.enumerateDevices) return [];
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((device) => device.kind === "videoinput");
  }

  get isOpen() {
    return this.stream !== null;
  }

  /** The id of the camera that runs. */
  get deviceId() {
    return this.stream?.getVideoTracks()[0]?.getSettings().deviceId ?? "";
  }

  /** Whether the camera looks away from the screen: such a picture is not mirrored. */
  get looksAway() {
    return this.stream?.getVideoTracks()[0]?.getSettings().facingMode === "environment";
  }

  /** Opens a camera, by its id or else by the side it looks to; closes the former one first. */
  async open(deviceId = "") {
    if (!Camera.isAllowedHere) throw new CameraError("insecure");
    this.close();
    const chosen = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: { ideal: this.facing } };
    const size = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
    /** @type {MediaStream} */
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { ...chosen, ...size }, audio: false });
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      throw new CameraError(CODES[error.name] ?? "failed", error.message || error.name);
    }
    this.stream = stream;
    stream.getVideoTracks()[0].addEventListener("ended", () => {
      if (this.stream !== stream) return;
      this.close();
      this.onEnd();
    });
    this.video.srcObject = stream;
    await this.video.play();
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }
}

/**
 * Calls `callback` for the next picture that `video` shows.
 * @param {HTMLVideoElement} video
 * @param {() => void} callback
 */
export function onNextFrame(video, callback) {
  if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(() => callback());
  else requestAnimationFrame(() => callback());
}

/** Turns pictures into JPEG no larger than the server takes. */
export class Encoder {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.context = pen(this.canvas, { alpha: false });
    this.quality = 0.8;
  }

  /**
   * The picture with its longer side at most `maxSide`, in at most `maxBytes`; null where the browser makes none.
   * @param {ImageBitmap} picture
   * @param {number} maxSide
   * @param {number} maxPixels
   * @param {number} maxBytes
   * @returns {Promise<Blob | null>}
   */
  async encode(picture, maxSide, maxPixels, maxBytes) {
    const scale = Math.min(
      1,
      maxSide / Math.max(picture.width, picture.height),
      Math.sqrt(maxPixels / (picture.width * picture.height)),
    );
    const [width, height] = [Math.floor(picture.width * scale), Math.floor(picture.height * scale)];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      [this.canvas.width, this.canvas.height] = [width, height];
    }
    this.context.drawImage(picture, 0, 0, width, height);
    /** @type {Blob | null} */
    const blob = await new Promise((done) => this.canvas.toBlob(done, "image/jpeg", this.quality));
    if (blob && blob.size > maxBytes && this.quality > 0.3) {
      this.quality -= 0.15;
      return this.encode(picture, maxSide, maxPixels, maxBytes);
    }
    return blob;
  }
}
