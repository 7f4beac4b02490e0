/** Frames a second and percentiles of latency over what was last seen. */

const WINDOW_MS = 3000;
const KEPT = 240; // results: eight seconds of a 30 Hz camera

/**
 * The q-th quantile (0 to 1) by linear interpolation, as NumPy has it; NaN of nothing.
 * @param {number[]} values
 * @param {number} q
 */
export function quantile(values, q) {
  if (!values.length) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const place = (sorted.length - 1) * q;
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}

export class Meter {
  /** @type {number[]} */
  times = [];
  /** @type {number[]} */
  latencies = [];
  dropped = 0;
  droppedBefore = 0;
  skipped = 0;

  reset() {
    Object.assign(this, new Meter());
  }

  /** A picture of the camera was not sent, because the server has enough to do. */
  skip() {
    this.skipped += 1;
  }

  /**
   * A result came.
   * @param {number} nowMs
   * @param {number} latencyMs its frame was taken as long ago
   * @param {number} dropped by this connection so far
   */
  add(nowMs, latencyMs, dropped) {
    this.times.push(nowMs);
    this.latencies.push(latencyMs);
    if (this.latencies.length > KEPT) this.latencies.shift();
    this.dropped = dropped;
  }

  /** The next connection counts from 0 again; what the former one dropped stays in the sum. */
  nextConnection() {
    this.droppedBefore += this.dropped;
    this.dropped = 0;
  }

  /** @param {number} nowMs */
  read(nowMs) {
    this.times = this.times.filter((time) => nowMs - time <= WINDOW_MS);
    const span = this.times.length > 1 ? this.times[this.times.length - 1] - this.times[0] : 0;
    return {
      fps: span > 0 ? (1000 * (this.times.length - 1)) / span : 0,
      p50: quantile(this.latencies, 0.5),
      p95: quantile(this.latencies, 0.95),
      dropped: this.droppedBefore + this.dropped + this.skipped,
    };
  }
}
