/** Words, tools and numbers as the state has them. */

import { byId, inside } from "./elements.js";
import { renderProgress } from "./files.js";
import { camera, meter } from "./live.js";
import { renderStatus } from "./model.js";
import { announcer, notices, player } from "./stage.js";
import { state } from "./state.js";
import { applyTexts, language, t } from "./texts.js";

export function renderWords() {
  const { mode, isRecording, isMirrored } = state;
  applyTexts();
  for (const name of ["en", "ko"]) byId(`lang-${name}`).setAttribute("aria-pressed", String(language() === name));
  const isLive = mode === "live";
  /** @type {NodeListOf<HTMLElement>} */
  const small = document.querySelectorAll(".tool.small");
  for (const button of small) button.title = button.textContent.trim();
  inside(byId("camera-toggle"), "span").textContent = t(isLive ? "stop" : "start");
  inside(byId("camera-toggle"), "use").setAttribute("href", isLive ? "#i-stop" : "#i-camera");
  inside(byId("record"), "span").textContent = t(isRecording ? "recordStop" : "record");
  byId("record").setAttribute("aria-pressed", String(isRecording));
  byId("mirror").setAttribute("aria-pressed", String(isMirrored));
  const isEmpty = mode === "idle" || isLive;
  const name = state.upload?.name ?? "";
  const canvasText = isEmpty ? t(isLive ? "canvasLive" : "canvasIdle") : t("canvasFile", { name });
  byId("canvas").setAttribute("aria-label", canvasText);
  renderProgress();
  player.showState();
  notices.render();
  renderStatus();
  renderTools();
}

export function renderTools() {
  const { mode, recording } = state;
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

export function renderNumbers() {
  const { isRecording, recording, upload } = state;
  const isLive = state.mode === "live" && camera.isOpen;
  const { fps, p50, p95, dropped } = meter.read(performance.now());
  /** @type {(value: number, digits: number) => string} */
  const number = (value, digits) => (isLive && Number.isFinite(value) ? value.toFixed(digits) : "–");
  const texts = { fps: number(fps, 1), p50: number(p50, 0), p95: number(p95, 0), dropped: number(dropped, 0) };
  for (const [id, text] of Object.entries(texts)) {
    byId(id).textContent = text;
    byId(id)
      .closest("dd")
      ?.classList.toggle("empty", text === "–");
  }
  byId("recording-badge").hidden = !isRecording;
  if (isRecording) byId("recording-text").textContent = t("recording", { n: recording?.rows.length ?? 0 });
  byId("download", HTMLButtonElement).disabled = !upload?.result && !recording?.rows.length;
  if (isRecording && byId("download").hidden) renderTools();
  if (isLive) announcer.check();
}
