/** Takes pictures of the camera and sends them, never more than the server answers. */

import { Encoder, onNextFrame } from "./camera.js";

/**
 * @import { Camera } from "./camera.js"
 * @import { Connection } from "./connection.js"
 */

const SENT_SIDE = 640; // longer side of what is sent; the preview stays as fine as the camera

export class Sender {
  /**
   * @param {Camera} camera
   * @param {Connection} connection
   * @param {(video: HTMLVideoElement) => void} onUnsent called with a picture of the camera that nothing will
   *   analyse, while there is no connection
   * @param {() => void} onSkip called when a picture is passed over because the server has enough to do
   */
  constructor(camera, connection, onUnsent, onSkip) {
    this.camera = camera;
    this.connection = connection;
    this.onUnsent = onUnsent;
    this.onSkip = onSkip;
    this.encoder = new Encoder();
    this.run = 0; // counts the starts: what belongs to a former one ends
    this.isEncoding = false;
  }

  start() {
    this.run += 1;
    this.next(this.run);
  }

  stop() {
    this.run += 1;
  }

  /** @param {number} run */
  next(run) {
    onNextFrame(this.camera.video, () => {
      if (run !== this.run) return;
      this.next(run);
      if (!this.camera.video.videoWidth) return;
      if (this.connection.state !== "live") this.onUnsent(this.camera.video);
      else if (this.isEncoding || !this.connection.canSend) this.onSkip();
      else this.send(run);
    });
  }

  /** @param {number} run */
  async send(run) {
    this.isEncoding = true;
    const takenMs = performance.now();
    /** @type {ImageBitmap | null} */
    let bitmap = null;
    try {
      bitmap = await createImageBitmap(this.camera.video);
      const { frame_pixels: maxPixels, frame_bytes: maxBytes } = this.connection.limits;
      const blob = await this.encoder.encode(bitmap, SENT_SIDE, maxPixels, maxBytes);
      if (run === this.run && blob && this.connection.state === "live") {
        const kept = bitmap;
        this.connection.send(blob, { bitmap: kept, takenMs, release: () => kept.close() });
        bitmap = null;
      }
    } catch {
      // The camera closed in between; the next picture, if there is one, is another try.
    } finally {
      bitmap?.close();
      this.isEncoding = false;
    }
  }
}
