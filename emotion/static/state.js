/** What the page knows and does at the moment: in this one place, for all its parts. */

/**
 * @import { Change, Hello } from "./connection.js"
 * @import { Recording } from "./recording.js"
 * @import { Result } from "./uploads.js"
 *
 * @typedef {"idle" | "live" | "picture" | "video"} Mode
 * @typedef {Change["state"] | "idle" | "nomodel" | "offline"} Status
 * @typedef {{ name: string, isSending: boolean, result: Result | null, cancel: () => void }} Upload
 */

export const state = {
  /** @type {Hello | null} what api/model says */
  model: null,
  /** @type {Mode} */
  mode: "idle",
  isMirrored: true,
  /** @type {Upload | null} */
  upload: null,
  /** @type {Recording | null} */
  recording: null,
  isRecording: false,
  recordingStartMs: 0,
  /** @type {{ state: Status, isFull?: boolean }} */
  status: { state: "idle" },
  secondsLeft: 0, // until the next try to connect
};

/** @type {(() => void)[]} */
const listeners = [];

/**
 * Calls a function whenever something has changed that words or tools show.
 * @param {() => void} listener
 */
export function onChange(listener) {
  listeners.push(listener);
}

export function changed() {
  for (const listener of listeners) listener();
}
