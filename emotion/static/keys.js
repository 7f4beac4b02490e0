/** Shortcuts of one key, their list, and the switch that turns them off (WCAG 2.1.4). */

import { recall, remember, t } from "./texts.js";

const STORED = "facevox.keys";
// By the place of the key: with a Korean layout the letters of `event.key` are others.
const KEYS = [
  { code: "KeyC", shown: "C", action: "camera", text: "keyCamera" },
  { code: "KeyU", shown: "U", action: "upload", text: "keyUpload" },
  { code: "KeyM", shown: "M", action: "mirror", text: "keyMirror" },
  { code: "KeyR", shown: "R", action: "record", text: "keyRecord" },
  { code: "KeyS", shown: "S", action: "download", text: "keyDownload" },
  { code: "Space", shown: "keySpace", action: "play", text: "keyPlay" },
  { code: "KeyL", shown: "L", action: "language", text: "keyLanguage" },
  { code: "KeyH", shown: "H", action: "help", text: "keyHelp" },
  { code: "Escape", shown: "keyEsc", action: "escape", text: "keyEscape" },
];

const byId = (id) => document.getElementById(id);

function showHelp() {
  const rows = KEYS.map(({ shown, text }) => {
    const row = document.createElement("div");
    const [term, what] = [document.createElement("dt"), document.createElement("dd")];
    const key = document.createElement("kbd");
    key.textContent = shown.length === 1 ? shown : t(shown);
    term.textContent = t(text);
    what.append(key);
    row.append(term, what);
    return row;
  });
  byId("keys").replaceChildren(...rows);
  byId("help").showModal();
}

/** Listens for the keys; `actions` has a function for each name. */
export function installKeys(actions) {
  const all = { ...actions, help: showHelp };
  byId("keys-on").checked = recall(STORED) !== "off";
  byId("keys-on").addEventListener("change", (event) => remember(STORED, event.target.checked ? "on" : "off"));
  byId("help-open").addEventListener("click", showHelp);
  byId("help-close").addEventListener("click", () => byId("help").close());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.isComposing) return;
    if (byId("help").open) return; // the dialog has its own Escape
    const key = KEYS.find(({ code }) => code === event.code);
    if (!key) return;
    const isTyping = event.target.closest("select, textarea, input:not([type=range])");
    const isPressing = key.code === "Space" && event.target.closest("button, summary, a, input");
    if (isTyping || isPressing) return;
    if (key.action !== "escape" && !byId("keys-on").checked) return;
    event.preventDefault();
    all[key.action]();
  });
}
