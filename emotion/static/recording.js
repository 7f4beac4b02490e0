/** Numbers of faces over time, kept in this page only, and written as CSV on demand. */

/** @import { Face } from "./connection.js" */

export const MAX_ROWS = 200000; // about 30 minutes of four faces at 30 Hz, and 40 MB

export class Recording {
  /** @param {string[]} classes names in the order of the probabilities */
  constructor(classes) {
    this.classes = classes;
    /** @type {[timeS: number, frame: number, face: Face | null, latencyMs: number | null][]} */
    this.rows = [];
  }

  get isFull() {
    return this.rows.length >= MAX_ROWS;
  }

  /**
   * One row for each face; a picture without faces leaves a row with its time alone.
   * @param {number} timeS
   * @param {number} frame
   * @param {Face[]} faces
   * @param {number | null} latencyMs
   */
  add(timeS, frame, faces, latencyMs = null) {
    for (const face of faces.length ? faces : [null]) {
      if (this.isFull) return;
      this.rows.push([timeS, frame, face, latencyMs]);
    }
  }

  csv() {
    const head = ["time_s", "frame", "face", "label", ...this.classes];
    head.push(...this.classes.map((name) => `${name}_smoothed`), "left", "top", "width", "height", "latency_ms");
    const lines = [head.join(",")];
    for (const [timeS, frame, face, latencyMs] of this.rows) {
      /** @type {(string | number)[]} */
      const cells = [timeS.toFixed(3), frame];
      if (face) {
        cells.push(face.id, face.label, ...face.probabilities.map(share), ...face.smoothed.map(share));
        cells.push(...face.box.map((edge) => edge.toFixed(1)));
      } else {
        cells.push(...Array(head.length - 3).fill(""));
      }
      cells.push(latencyMs === null ? "" : latencyMs.toFixed(1));
      lines.push(cells.join(","));
    }
    return `${lines.join("\r\n")}\r\n`; // RFC 4180
  }
}

/** @param {number} value */
function share(value) {
  return value.toFixed(4);
}

/**
 * Hands a text to the browser as a file.
 * @param {string} text
 * @param {string} name
 */
export function saveText(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
