/** The camera at work: opened, sent to the server, shown with the answers, and what goes wrong with it. */

import { Camera, CameraError } from "./camera.js";
import { Connection } from "./connection.js";
import { byId } from "./elements.js";
import { leaveUpload } from "./files.js";
import { Meter } from "./meters.js";
import { askForModel, setStatus, showNoModel, takeModel } from "./model.js";
import { toggleRecording } from "./recorder.js";
import { Sender } from "./sender.js";
import { notices, painter, scene, setMode, setShape, showScene, table } from "./stage.js";
import { changed, state } from "./state.js";
import { language, t } from "./texts.js";

/**
 * @import { CameraCode } from "./camera.js"
 * @import { Answer, Change, Entry, Hello, Refusal } from "./connection.js"
 * @import { Key } from "./texts.js"
 */

/** @type {Record<CameraCode, [title: Key, text: Key]>} */
const FAILURES = {
  insecure: ["insecureTitle", "insecure"],
  denied: ["deniedTitle", "denied"],
  missing: ["noCameraTitle", "noCamera"],
  busy: ["busyTitle", "busy"],
  failed: ["cameraFailedTitle", "cameraFailed"],
};

const address = new URL("ws", location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";

export const camera = new Camera(byId("camera", HTMLVideoElement), cameraWasLost);
export const connection = new Connection(address, {
  hello: greeted,
  result: showResult,
  refused: frameWasRefused,
  state: connectionChanged,
});
export const meter = new Meter();
const sender = new Sender(camera, connection, showCameraItself, () => meter.skip());

let run = 0; // counts starts of the camera: what belongs to a former one stops
/** @type {ImageBitmap | null} the picture of the camera on the stage; given back when the next comes */
let shown = null;

export async function startCamera(deviceId = byId("device", HTMLSelectElement).value) {
  notices.hide();
  leaveUpload();
  const own = ++run;
  if (!(state.model?.ready || (await askForModel())) || own !== run) return;
  setMode("live");
  notices.hint(t("opening"), true);
  try {
    await camera.open(deviceId);
  } catch (error) {
    if (own === run) cameraFailed(error);
    return;
  }
  if (own !== run) {
    if (state.mode !== "live") camera.close(); // stopped while it was being opened
    return;
  }
  notices.hint("");
  state.isMirrored = !camera.looksAway;
  meter.reset();
  setShape(camera.video.videoWidth, camera.video.videoHeight);
  connection.open();
  listDevices();
  changed();
  sender.start();
}

export function stopCamera() {
  run += 1;
  sender.stop();
  connection.close();
  camera.close();
  notices.hint("");
  if (state.isRecording) toggleRecording();
  shown?.close();
  shown = null;
  setMode("idle");
}

export function flipCamera() {
  camera.facing = camera.looksAway ? "user" : "environment";
  startCamera("");
}

/** Fills the list of cameras; their names are known once one was allowed. */
export async function listDevices() {
  const devices = await Camera.list();
  const options = [new Option(t("deviceDefault"), "")];
  devices.forEach((device, index) => {
    if (device.deviceId) options.push(new Option(device.label || t("deviceNumber", { n: index + 1 }), device.deviceId));
  });
  const select = byId("device", HTMLSelectElement);
  const chosen = camera.isOpen ? camera.deviceId : select.value;
  select.replaceChildren(...options);
  select.value = options.some((option) => option.value === chosen) ? chosen : "";
  byId("flip").dataset.useful = String(devices.length > 1 && matchMedia("(pointer: coarse)").matches);
  changed();
}

/** @param {unknown} error */
function cameraFailed(error) {
  stopCamera();
  const [title, text] = FAILURES[error instanceof CameraError ? error.code : "failed"];
  const reason = error instanceof Error ? error.message : String(error);
  notices.show({ title, text, values: { reason } }, () => startCamera());
}

function cameraWasLost() {
  stopCamera();
  notices.show({ title: "noCameraTitle", text: "cameraLost" }, () => startCamera(""));
}

/**
 * Nothing is analysed now: the picture of the camera without boxes.
 * @param {HTMLVideoElement} video
 */
function showCameraItself(video) {
  painter.paint(scene(video, video.videoWidth, video.videoHeight, []));
}

/** @param {Hello} hello */
function greeted(hello) {
  takeModel(hello);
  meter.nextConnection();
  notices.hint("");
  if (!hello.ready) stopWithoutModel();
}

function stopWithoutModel() {
  stopCamera();
  setStatus({ state: "nomodel" });
  showNoModel();
}

/** @param {Answer & { sent: Entry }} result */
function showResult(result) {
  const { bitmap, takenMs } = result.sent;
  if (state.mode !== "live") {
    bitmap.close();
    return;
  }
  const nowMs = performance.now();
  meter.add(nowMs, nowMs - takenMs, result.dropped);
  showScene(scene(bitmap, result.width, result.height, result.faces));
  shown?.close();
  shown = bitmap;
  if (state.isRecording && state.recording) {
    const timeS = (takenMs - state.recordingStartMs) / 1000;
    state.recording.add(timeS, result.frame, result.faces, nowMs - takenMs);
    if (state.recording.isFull) {
      toggleRecording();
      notices.hint(t("recordFull"), true);
    }
  }
}

/** @param {Refusal} refusal */
function frameWasRefused({ code, message }) {
  if (code === "no_model") stopWithoutModel();
  else notices.hint(message?.[language()] ?? code);
}

/** @param {Change} change */
function connectionChanged(change) {
  if (change.state === "closed") {
    setStatus({ state: state.model?.ready === false ? "nomodel" : "idle" });
  } else if (change.state === "refused") {
    stopCamera();
    notices.show({ title: "refusedTitle", text: "refused" }, () => startCamera());
  } else {
    state.secondsLeft = change.waitS ?? 0;
    setStatus(change);
    if (change.state === "waiting") {
      table.show(null);
      const connections = state.model?.limits.connections ?? 0;
      notices.hint(change.isFull ? t("full", { n: connections }) : t("lostHint"), true);
    }
  }
}
