/** Shortcuts of one key, their list, and the switch that turns them off (WCAG 2.1.4). */

import { byId } from "./elements.js";
import { recall, remember, t } from "./texts.js";

/**
 * @import { Key } from "./texts.js"
 * @typedef {"camera" | "upload" | "mirror" | "record" | "download" | "play" | "language" | "escape"} Action
 */

const STORED = "facevox.keys";
// By the place of the key: with a Korean layout the letters of `event.key` are others.
/** @type {{ code: string, letter?: string, shown?: Key, action: Action | "help", text: Key }[]} */
const KEYS = [
  { code: "KeyC", letter: "C", action: "camera", text: "keyCamera" },
  { code: "KeyU", letter: "U", action: "upload", text: "keyUpload" },
  { code: "KeyM", letter: "M", action: "mirror", text: "keyMirror" },
  { code: "KeyR", letter: "R", action: "record", text: "keyRecord" },
  { code: "KeyS", letter: "S", action: "download", text: "keyDownload" },
  { code: "Space", shown: "keySpace", action: "play", text: "keyPlay" },
  { code: "KeyL", letter: "L", action: "language", text: "keyLanguage" },
  { code: "KeyH", letter: "H", action: "help", text: "keyHelp" },
  { code: "Escape", shown: "keyEsc", action: "escape", text: "keyEscape" },
];

function showHelp() {
  const rows = KEYS.map(({ letter, shown, text }) => {
    const row = document.createElement("div");
    const [term, what] = [document.createElement("dt"), document.createElement("dd")];
    const key = document.createElement("kbd");
    key.textContent = letter ?? (shown ? t(shown) : "");
    term.textContent = t(text);
    what.append(key);
    row.append(term, what);
    return row;
  });
  byId("keys").replaceChildren(...rows);
  byId("help", HTMLDialogElement).showModal();
}

/**
 * Listens for the keys.
 * @param {Record<Action, () => void>} actions
 */
export function installKeys(actions) {
  const all = { ...actions, help: showHelp };
  const [isOn, help] = [byId("keys-on", HTMLInputElement), byId("help", HTMLDialogElement)];
  isOn.checked = recall(STORED) !== "off";
  isOn.addEventListener("change", () => remember(STORED, isOn.checked ? "on" : "off"));
  byId("help-open").addEventListener("click", showHelp);
  byId("help-close").addEventListener("click", () => help.close());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.isComposing) return;
    if (help.open) return; // the dialog has its own Escape
    const key = KEYS.find(({ code }) => code === event.code);
    if (!key) return;
    const target = event.target instanceof Element ? event.target : document.body;
    const isTyping = target.closest("select, textarea, input:not([type=range])");
    const isPressing = key.code === "Space" && target.closest("button, summary, a, input");
    if (isTyping || isPressing) return;
    if (key.action !== "escape" && !isOn.checked) return;
    event.preventDefault();
    all[key.action]();
  });
}
