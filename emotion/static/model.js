/** Whether there is a model, and the line at the top that says what the server is doing. */

import { byId } from "./elements.js";
import { announcer, notices, table } from "./stage.js";
import { state } from "./state.js";
import { t } from "./texts.js";

/**
 * @import { Hello } from "./connection.js"
 * @import { Status } from "./state.js"
 * @import { Key } from "./texts.js"
 */

const TRAINING = { own: "make emotion-preprocess emotion-train", demo: "make demo" };

/** @type {Partial<Record<Status, Key>>} */
const STATUS_TEXTS = {
  idle: "statusIdle",
  connecting: "statusConnecting",
  live: "statusLive",
  nomodel: "statusNoModel",
  offline: "statusOffline",
};

/** @param {Hello} hello */
export function takeModel(hello) {
  state.model = hello;
  table.setClasses(hello.classes, hello.labels);
}

/** Asks the server for its model; whether there is one, after saying so where there is none. */
export async function askForModel() {
  notices.hide();
  try {
    const answer = await fetch("api/model", { cache: "no-store" });
    takeModel(await answer.json());
  } catch {
    setStatus({ state: "offline" });
    notices.show({ title: "networkTitle", text: "network" }, askForModel);
    return false;
  }
  const isReady = Boolean(state.model?.ready);
  setStatus({ state: isReady ? "idle" : "nomodel" });
  if (!isReady) showNoModel();
  return isReady;
}

export function showNoModel() {
  const commands = () => `# ${t("noModelOwn")}\n${TRAINING.own}\n\n# ${t("noModelDemo")}\n${TRAINING.demo}`;
  notices.show({ title: "noModel", text: "noModelText", commands }, askForModel);
}

/** @param {typeof state.status} next */
export function setStatus(next) {
  if (next.state !== state.status.state) announcer.say(statusText(next));
  state.status = next;
  renderStatus();
}

/** @param {typeof state.status} status */
function statusText(status) {
  if (status.state === "waiting") return t(status.isFull ? "statusFull" : "statusWaiting", { s: state.secondsLeft });
  return t(STATUS_TEXTS[status.state] ?? "statusIdle");
}

export function renderStatus() {
  byId("status").dataset.state = state.status.state;
  const text = statusText(state.status);
  if (byId("status-text").textContent !== text) byId("status-text").textContent = text;
}
