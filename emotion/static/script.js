/** The page: which button, key, drop and timer does what. */

import { acceptDrops } from "./dropping.js";
import { byId } from "./elements.js";
import { leaveUpload, takeFile } from "./files.js";
import { installKeys } from "./keys.js";
import { camera, flipCamera, listDevices, startCamera, stopCamera } from "./live.js";
import { askForModel, renderStatus } from "./model.js";
import { saveCsv, toggleRecording } from "./recorder.js";
import { renderNumbers, renderWords } from "./render.js";
import { notices, painter, player, setMode, stage, table } from "./stage.js";
import { changed, onChange, state } from "./state.js";
import { language, setLanguage } from "./texts.js";

/** @import { Language } from "./texts.js" */

const toggleCamera = () => (state.mode === "live" ? stopCamera() : startCamera());
const chooseFile = () => byId("file").click();

function mirror() {
  state.isMirrored = !state.isMirrored;
  changed();
  painter.repaint({ mirrored: state.mode === "live" && state.isMirrored });
}

/** @param {Language} name */
function switchLanguage(name) {
  setLanguage(name);
  changed();
  table.render();
  painter.repaint({ labels: table.names });
  listDevices();
}

/** @param {File[]} files */
function takeFiles(files) {
  if (!files.length) return;
  if (state.mode === "live") stopCamera();
  takeFile(files[0], files.length > 1);
}

const buttons = {
  start: () => startCamera(),
  "camera-toggle": toggleCamera,
  choose: chooseFile,
  upload: chooseFile,
  mirror,
  flip: flipCamera,
  record: toggleRecording,
  download: saveCsv,
  leave: leaveUpload,
  cancel: leaveUpload,
  "lang-en": () => switchLanguage("en"),
  "lang-ko": () => switchLanguage("ko"),
};
for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", action);

installKeys({
  camera: toggleCamera,
  upload: chooseFile,
  mirror: () => {
    if (state.mode === "live") mirror();
  },
  record: toggleRecording,
  download: saveCsv,
  play: () => {
    if (state.mode === "video") player.toggle();
  },
  language: () => switchLanguage(language() === "en" ? "ko" : "en"),
  escape: () => (notices.isOpen ? notices.hide() : leaveUpload()),
});

byId("device").addEventListener("change", () => {
  if (state.mode === "live") startCamera();
});
const picker = byId("file", HTMLInputElement);
picker.addEventListener("change", () => {
  const files = [...(picker.files ?? [])];
  picker.value = ""; // the same file again is a change as well
  takeFiles(files);
});
acceptDrops(byId("drop"), takeFiles);

new ResizeObserver(() => {
  painter.repaint();
  player.drawStrip();
}).observe(stage);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => player.drawStrip());
navigator.mediaDevices?.addEventListener?.("devicechange", listDevices);
window.addEventListener("pagehide", () => {
  if (camera.isOpen) stopCamera();
});

setInterval(renderNumbers, 500);
setInterval(() => {
  if (state.status.state !== "waiting" || state.secondsLeft <= 1) return;
  state.secondsLeft -= 1;
  renderStatus();
}, 1000);

onChange(renderWords);
setMode("idle");
renderNumbers();
askForModel();
