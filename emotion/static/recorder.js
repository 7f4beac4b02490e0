/** Recording the numbers of the live picture, and saving them or those of an upload as CSV. */

import { Recording, saveText } from "./recording.js";
import { announcer, notices } from "./stage.js";
import { changed, state } from "./state.js";
import { t } from "./texts.js";

export function toggleRecording() {
  if (!state.isRecording && (state.mode !== "live" || !state.model)) return;
  state.isRecording = !state.isRecording;
  if (state.isRecording && state.model) {
    state.recording = new Recording(state.model.classes);
    state.recordingStartMs = performance.now();
    announcer.say(t("recording", { n: 0 }));
  } else if (state.recording?.rows.length) {
    const text = t("recorded", { n: state.recording.rows.length });
    notices.hint(text);
    announcer.say(text);
  }
  changed();
}

export function saveCsv() {
  const result = state.upload?.result;
  let rows = state.recording;
  if (result) {
    rows = new Recording(result.classes);
    const frames = result.kind === "video" ? result.frames : [{ time_s: 0, faces: result.faces }];
    for (const [index, frame] of frames.entries()) rows.add(frame.time_s, index + 1, frame.faces);
  }
  if (!rows?.rows.length) return;
  const stamp = new Date().toISOString().slice(0, 19).replace("T", "_").replaceAll(":", "");
  saveText(rows.csv(), `facevox_${stamp}.csv`);
}
