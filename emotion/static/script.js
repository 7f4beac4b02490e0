/** The page: what the parts say to each other. */

import { Camera, CameraError } from "./camera.js";
import { Connection } from "./connection.js";
import { Painter } from "./drawing.js";
import { acceptDrops } from "./dropping.js";
import { Announcer, FaceTable } from "./faces.js";
import { installKeys } from "./keys.js";
import { Meter } from "./meters.js";
import { Notices } from "./notices.js";
import { Recording, saveText } from "./recording.js";
import { Sender } from "./sender.js";
import { applyTexts, language, setLanguage, t } from "./texts.js";
import { UploadError, analyseFile, Player } from "./uploads.js";

const TRAINING = { own: "make emotion-preprocess emotion-train", demo: "make demo" };

const byId = (id) => document.getElementById(id);
const address = new URL("ws", location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";

const stage = byId("stage");
const painter = new Painter(byId("canvas"));
const table = new FaceTable();
const announcer = new Announcer(byId("announce"), table);
const camera = new Camera(byId("camera"), cameraWasLost);
const connection = new Connection(address);
const meter = new Meter();
const sender = new Sender(camera, connection, showCameraItself, () => meter.skip());
const notices = new Notices(showWelcome);
const player = new Player({
  video: byId("clip"),
  strip: byId("strip"),
  seek: byId("seek"),
  play: byId("play"),
  output: byId("clock"),
  onFrame: (picture, faces) => showScene(scene(picture, upload.result.width, upload.result.height, faces)),
});

let model = null; // what api/model says: ready, classes, labels, limits
let mode = "idle"; // idle, live, picture, video
let isMirrored = true;
let run = 0; // counts starts of the camera: what belongs to a former one stops
let shown = null; // the picture of the camera that is on the stage; to be given back when the next comes
let recording = null;
let isRecording = false;
let recordingStartMs = 0;
let upload = null; // {name, result, cancel}
let status = { state: "idle" };
let secondsLeft = 0;

/* The stage */

const faceName = (id) => t("face", { n: id });

function scene(picture, width, height, faces) {
  const { classes = [] } = model ?? {};
  const mirrored = mode === "live" && isMirrored;
  return { picture, width, height, faces, classes, labels: table.names, faceName, mirrored };
}

function showScene(what) {
  painter.paint(what);
  table.show(what.faces);
}

function setMode(next) {
  mode = next;
  stage.dataset.mode = next;
  showWelcome();
  byId("timeline").hidden = next !== "video";
  if (next === "idle") {
    painter.clear();
    table.show(null);
    stage.style.aspectRatio = "";
  }
  renderWords();
}

function showWelcome() {
  byId("welcome").hidden = mode !== "idle" || notices.isOpen || Boolean(upload?.isSending);
}

function setShape(width, height) {
  stage.style.aspectRatio = `${width} / ${height}`;
  painter.resize();
}

function showNoModel() {
  const commands = () => `# ${t("noModelOwn")}\n${TRAINING.own}\n\n# ${t("noModelDemo")}\n${TRAINING.demo}`;
  notices.show({ title: "noModel", text: "noModelText", commands }, askForModel);
}

/* The model */

function takeModel(hello) {
  model = hello;
  table.setClasses(hello.classes, hello.labels);
}

async function askForModel() {
  notices.hide();
  try {
    const answer = await fetch("api/model", { cache: "no-store" });
    takeModel(await answer.json());
  } catch {
    setStatus({ state: "offline" });
    notices.show({ title: "networkTitle", text: "network" }, askForModel);
    return false;
  }
  setStatus({ state: model.ready ? "idle" : "nomodel" });
  if (!model.ready) showNoModel();
  return model.ready;
}

/* The camera */

async function startCamera(deviceId = byId("device").value) {
  notices.hide();
  leaveUpload();
  const own = ++run;
  if (!(model?.ready || (await askForModel())) || own !== run) return;
  setMode("live");
  notices.hint(t("opening"), true);
  try {
    await camera.open(deviceId);
  } catch (error) {
    if (own === run) cameraFailed(error);
    return;
  }
  if (own !== run) {
    if (mode !== "live") camera.close(); // stopped while it was being opened
    return;
  }
  notices.hint("");
  isMirrored = !camera.looksAway;
  meter.reset();
  setShape(camera.video.videoWidth, camera.video.videoHeight);
  connection.open();
  listDevices();
  renderWords();
  sender.start();
}

function cameraFailed(error) {
  stopCamera();
  const code = error instanceof CameraError ? error.code : "failed";
  const keys = {
    insecure: ["insecureTitle", "insecure"],
    denied: ["deniedTitle", "denied"],
    missing: ["noCameraTitle", "noCamera"],
    busy: ["busyTitle", "busy"],
    failed: ["cameraFailedTitle", "cameraFailed"],
  }[code];
  notices.show({ title: keys[0], text: keys[1], values: { reason: error.message } }, () => startCamera());
}

function cameraWasLost() {
  stopCamera();
  notices.show({ title: "noCameraTitle", text: "cameraLost" }, () => startCamera(""));
}

function stopCamera() {
  run += 1;
  sender.stop();
  connection.close();
  camera.close();
  notices.hint("");
  if (isRecording) toggleRecording();
  shown?.close();
  shown = null;
  setMode("idle");
}

/** Nothing is analysed now: the picture of the camera without boxes. */
function showCameraItself(video) {
  painter.paint(scene(video, video.videoWidth, video.videoHeight, []));
}

function showResult(result) {
  const { bitmap, takenMs } = result.sent;
  if (mode !== "live") {
    bitmap.close();
    return;
  }
  const nowMs = performance.now();
  meter.add(nowMs, nowMs - takenMs, result.dropped);
  showScene(scene(bitmap, result.width, result.height, result.faces));
  shown?.close();
  shown = bitmap;
  if (isRecording) {
    recording.add((takenMs - recordingStartMs) / 1000, result.frame, result.faces, nowMs - takenMs);
    if (recording.isFull) {
      toggleRecording();
      notices.hint(t("recordFull"), true);
    }
  }
}

async function listDevices() {
  const devices = await Camera.list();
  const options = [new Option(t("deviceDefault"), "")];
  devices.forEach((device, index) => {
    if (device.deviceId) options.push(new Option(device.label || t("deviceNumber", { n: index + 1 }), device.deviceId));
  });
  const select = byId("device");
  const chosen = camera.isOpen ? camera.deviceId : select.value;
  select.replaceChildren(...options);
  select.value = options.some((option) => option.value === chosen) ? chosen : "";
  byId("flip").dataset.useful = String(devices.length > 1 && matchMedia("(pointer: coarse)").matches);
  renderTools();
}

/* Files */

async function takeFiles(files) {
  if (!files.length) return;
  const file = files[0];
  if (mode === "live") stopCamera();
  notices.hide();
  leaveUpload();
  upload = { name: file.name, isSending: true };
  const own = upload;
  byId("working").hidden = false;
  showWelcome();
  byId("cancel").focus({ preventScroll: true });
  const job = analyseFile(file, (share) => own === upload && showProgress(share));
  own.cancel = job.cancel;
  showProgress(0);
  try {
    own.result = await job.promise;
    if (own === upload) await showUpload(file);
    if (own === upload && files.length > 1) notices.hint(t("tooManyFiles", { name: file.name }));
  } catch (error) {
    if (own === upload) uploadFailed(error, () => takeFiles([file]));
  } finally {
    if (own === upload || !upload) byId("working").hidden = true;
  }
}

function showProgress(share) {
  const bar = byId("progress");
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  byId("working-title").textContent = t(share === null ? "analysing" : "sending", { name: upload.name });
}

async function showUpload(file) {
  const { result } = upload;
  // A video's own list of classes is the model's at the time; a picture comes from the model that is known.
  const classes = result.classes ?? model?.classes ?? [];
  if (classes.join() !== model?.classes.join()) await askForModel();
  upload.isSending = false;
  setShape(result.width, result.height);
  byId("working").hidden = true;
  if (result.kind === "video") {
    setMode("video");
    if (!(await player.open(file, result)) && upload?.result === result) notices.hint(t("unplayable"), true);
  } else {
    setMode("picture");
    const picture = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
    showScene(scene(picture, result.width, result.height, result.faces));
    if (!result.faces.length) notices.hint(t("noFaceInFile"));
  }
  announcer.check();
  stage.focus({ preventScroll: true });
}

function uploadFailed(error, again) {
  upload = null;
  setMode("idle");
  const { code, words } = error instanceof UploadError ? error : { code: "network" };
  if (code === "cancelled") return;
  if (code === "no_model") showNoModel();
  else if (words) notices.show({ title: "refusedNow", words }, again);
  else notices.show({ title: "networkTitle", text: "network" }, again);
}

/** Puts the uploaded picture or video away; nothing where there is none. */
function leaveUpload() {
  if (!upload) return;
  const { isSending, cancel } = upload;
  upload = null;
  if (isSending) cancel?.();
  byId("working").hidden = true;
  player.close();
  notices.hint("");
  setMode("idle");
}

/* Recording */

function toggleRecording() {
  if (!isRecording && mode !== "live") return;
  isRecording = !isRecording;
  if (isRecording) {
    recording = new Recording(model.classes);
    recordingStartMs = performance.now();
    announcer.say(t("recording", { n: 0 }));
  } else if (recording.rows.length) {
    notices.hint(t("recorded", { n: recording.rows.length }));
    announcer.say(t("recorded", { n: recording.rows.length }));
  }
  renderWords();
}

function saveCsv() {
  let rows = recording;
  if (upload?.result) {
    const { result } = upload;
    rows = new Recording(result.classes ?? model.classes);
    const frames = result.frames ?? [{ time_s: 0, faces: result.faces }];
    frames.forEach((frame, index) => rows.add(frame.time_s, index + 1, frame.faces));
  }
  if (!rows?.rows.length) return;
  const stamp = new Date().toISOString().slice(0, 19).replace("T", "_").replaceAll(":", "");
  saveText(rows.csv(), `facevox_${stamp}.csv`);
}

/* Words and numbers */

function setStatus(next) {
  if (next.state !== status.state) announcer.say(statusText(next));
  status = next;
  renderStatus();
}

function statusText({ state, isFull }) {
  if (state === "waiting") return t(isFull ? "statusFull" : "statusWaiting", { s: secondsLeft });
  const keys = { idle: "statusIdle", connecting: "statusConnecting", live: "statusLive", slow: "statusSlow" };
  return t({ ...keys, nomodel: "statusNoModel", offline: "statusOffline" }[state]);
}

function renderStatus() {
  byId("status").dataset.state = status.state;
  const text = statusText(status);
  if (byId("status-text").textContent !== text) byId("status-text").textContent = text;
}

function renderTools() {
  const isLive = mode === "live";
  const isFile = mode === "picture" || mode === "video";
  const visible = {
    "camera-toggle": isLive || isFile,
    pick: isLive,
    flip: isLive && byId("flip").dataset.useful === "true",
    mirror: isLive,
    record: isLive,
    download: isFile || Boolean(recording?.rows.length),
    upload: isLive || isFile,
    leave: isFile,
  };
  for (const [id, isVisible] of Object.entries(visible)) byId(id).hidden = !isVisible;
  byId("upload").classList.toggle("small", isLive); // beside fewer tools there is room for its name
  byId("tools").hidden = !Object.values(visible).some(Boolean);
}

function renderWords() {
  applyTexts();
  for (const name of ["en", "ko"]) byId(`lang-${name}`).setAttribute("aria-pressed", String(language() === name));
  const isLive = mode === "live";
  for (const button of document.querySelectorAll(".tool.small")) button.title = button.textContent.trim();
  byId("camera-toggle").querySelector("span").textContent = t(isLive ? "stop" : "start");
  byId("camera-toggle").querySelector("use").setAttribute("href", isLive ? "#i-stop" : "#i-camera");
  byId("record").querySelector("span").textContent = t(isRecording ? "recordStop" : "record");
  byId("record").setAttribute("aria-pressed", String(isRecording));
  byId("mirror").setAttribute("aria-pressed", String(isMirrored));
  const canvasText = { idle: t("canvasIdle"), live: t("canvasLive") }[mode];
  byId("canvas").setAttribute("aria-label", canvasText ?? t("canvasFile", { name: upload?.name ?? "" }));
  if (upload?.isSending) showProgress(byId("progress").hasAttribute("value") ? byId("progress").value : null);
  player.showState();
  notices.render();
  renderStatus();
  renderTools();
}

function renderNumbers() {
  const isLive = mode === "live" && camera.isOpen;
  const { fps, p50, p95, dropped } = meter.read(performance.now());
  const number = (value, digits) => (isLive && Number.isFinite(value) ? value.toFixed(digits) : "–");
  const texts = { fps: number(fps, 1), p50: number(p50, 0), p95: number(p95, 0), dropped: number(dropped, 0) };
  for (const [id, text] of Object.entries(texts)) {
    byId(id).textContent = text;
    byId(id).closest("dd").classList.toggle("empty", text === "–");
  }
  byId("recording-badge").hidden = !isRecording;
  if (isRecording) byId("recording-text").textContent = t("recording", { n: recording.rows.length });
  byId("download").disabled = !upload?.result && !recording?.rows.length;
  if (isRecording && byId("download").hidden) renderTools();
  if (status.state === "live" || status.state === "slow") setStatus({ state: connection.isSlowed ? "slow" : "live" });
  if (isLive) announcer.check();
}

function switchLanguage(name) {
  setLanguage(name);
  renderWords();
  table.render();
  painter.repaint({ labels: table.names });
  listDevices();
}

/* Everything together */

connection.addEventListener("hello", ({ detail }) => {
  takeModel(detail);
  meter.nextConnection();
  notices.hint("");
  if (detail.ready) return;
  stopCamera();
  setStatus({ state: "nomodel" });
  showNoModel();
});
connection.addEventListener("result", ({ detail }) => showResult(detail));
connection.addEventListener("refused", ({ detail }) => {
  if (detail.code === "no_model") {
    stopCamera();
    setStatus({ state: "nomodel" });
    showNoModel();
  } else {
    notices.hint(detail.code === "rate" ? t("rate") : (detail.message?.[language()] ?? detail.code));
  }
});
connection.addEventListener("state", ({ detail }) => {
  if (detail.state === "closed") {
    setStatus({ state: model?.ready === false ? "nomodel" : "idle" });
  } else if (detail.state === "refused") {
    stopCamera();
    notices.show({ title: "refusedTitle", text: "refused" }, () => startCamera());
  } else {
    secondsLeft = detail.waitS ?? 0;
    setStatus(detail);
    if (detail.state === "waiting") {
      table.show(null);
      notices.hint(detail.isFull ? t("full", { n: model.limits.connections }) : t("lostHint"), true);
    }
  }
});

setInterval(renderNumbers, 500);
setInterval(() => {
  if (status.state !== "waiting" || secondsLeft <= 1) return;
  secondsLeft -= 1;
  renderStatus();
}, 1000);

const actions = {
  start: () => startCamera(),
  "camera-toggle": () => (mode === "live" ? stopCamera() : startCamera()),
  choose: () => byId("file").click(),
  upload: () => byId("file").click(),
  mirror: () => {
    isMirrored = !isMirrored;
    renderWords();
    painter.repaint({ mirrored: mode === "live" && isMirrored });
  },
  flip: () => {
    camera.facing = camera.looksAway ? "user" : "environment";
    startCamera("");
  },
  record: toggleRecording,
  download: saveCsv,
  leave: leaveUpload,
  cancel: leaveUpload,
  "lang-en": () => switchLanguage("en"),
  "lang-ko": () => switchLanguage("ko"),
};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);

byId("device").addEventListener("change", () => mode === "live" && startCamera());
byId("file").addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = ""; // the same file again is a change as well
  takeFiles(files);
});

acceptDrops(byId("drop"), takeFiles);

new ResizeObserver(() => {
  painter.repaint();
  player.drawStrip();
}).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => player.drawStrip());
navigator.mediaDevices?.addEventListener?.("devicechange", listDevices);
window.addEventListener("pagehide", () => camera.isOpen && stopCamera());

installKeys({
  camera: actions["camera-toggle"],
  upload: actions.upload,
  mirror: () => mode === "live" && actions.mirror(),
  record: toggleRecording,
  download: saveCsv,
  play: () => mode === "video" && player.toggle(),
  language: () => switchLanguage(language() === "en" ? "ko" : "en"),
  escape: () => (notices.isOpen ? notices.hide() : leaveUpload()),
});

setMode("idle");
renderNumbers();
askForModel();
