/** The numbers of the faces in words: a table, a legend, and what a screen reader says. */

import { indexOfLargest } from "./drawing.js";
import { byId, inside } from "./elements.js";
import { colourNumbers } from "./palette.js";
import { language, t } from "./texts.js";

/** @import { Face } from "./connection.js" */

const TABLE_EVERY_MS = 250;
const SAY_EVERY_MS = 4000; // a new sentence before the last one is read to its end would only stutter

export class FaceTable {
  constructor() {
    /** @type {string[]} */
    this.classes = [];
    /** @type {Record<string, string[]>} */
    this.labels = {};
    /** @type {{ share: HTMLElement, cell: HTMLElement }[][]} */
    this.cells = [];
    /** @type {Face[] | null} */
    this.faces = null; // null: nothing looked at yet
    this.shape = "";
    this.nextMs = 0;
    this.timer = 0;
  }

  /**
   * @param {string[]} classes
   * @param {Record<string, string[]>} labels their names by language
   */
  setClasses(classes, labels) {
    this.classes = classes;
    this.labels = labels;
    this.shape = "";
    this.render();
  }

  get names() {
    return this.labels[language()] ?? this.classes;
  }

  /**
   * Shows faces, not more often than the eye can read; null empties the table.
   * @param {Face[] | null} faces
   */
  show(faces) {
    this.faces = faces && [...faces].sort((a, b) => a.id - b.id);
    const wait = this.nextMs - performance.now();
    if (wait <= 0) this.render();
    else if (!this.timer) this.timer = setTimeout(() => this.render(), wait);
  }

  render() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.nextMs = performance.now() + TABLE_EVERY_MS;
    const faces = (this.faces ?? []).filter((face) => face.smoothed.length === this.classes.length);
    byId("faces-scroll").hidden = faces.length === 0;
    byId("faces-none").hidden = faces.length > 0;
    byId("faces-none-text").textContent = t(this.faces === null ? "facesIdle" : "facesNone");
    byId("faces-count").textContent = faces.length ? t("facesCount", { n: faces.length }) : "";
    const shape = [language(), ...this.classes, "|", ...faces.map((face) => face.id)].join();
    if (shape !== this.shape) this.build(faces);
    this.shape = shape;
    this.fill(faces);
  }

  /** @param {Face[]} faces */
  build(faces) {
    const colours = colourNumbers(this.classes).map((n) => `var(--emotion-${n})`);
    byId("legend").replaceChildren(
      ...this.names.map((name, index) => {
        const item = element("li", name);
        item.style.setProperty("--bar", colours[index]);
        return item;
      }),
    );
    const head = element("tr");
    head.append(heading(t("expression"), "col"), ...faces.map((face) => heading(t("face", { n: face.id }), "col")));
    inside(byId("faces"), "thead").replaceChildren(head);
    this.cells = [];
    const rows = this.names.map((name, index) => {
      const row = element("tr");
      row.append(heading(name, "row"));
      this.cells[index] = faces.map(() => {
        const cell = element("td");
        const share = element("span");
        share.className = "share";
        const bar = element("span");
        bar.className = "bar";
        bar.setAttribute("aria-hidden", "true");
        bar.append(element("i"));
        cell.style.setProperty("--bar", colours[index]);
        cell.append(share, bar);
        row.append(cell);
        return { cell, share };
      });
      return row;
    });
    inside(byId("faces"), "tbody").replaceChildren(...rows);
  }

  /** @param {Face[]} faces */
  fill(faces) {
    faces.forEach((face, column) => {
      const best = indexOfLargest(face.smoothed);
      face.smoothed.forEach((value, index) => {
        const { cell, share } = this.cells[index][column];
        const text = String(Math.round(100 * value));
        if (share.textContent !== text) share.textContent = text;
        cell.classList.toggle("top-share", index === best);
        cell.style.setProperty("--share", value.toFixed(3));
      });
    });
  }

  /** The faces in a sentence: "Face 1: Happy, 82 percent". */
  sentence() {
    if (!this.faces?.length) return this.faces ? t("saidNone") : "";
    return this.faces
      .filter((face) => face.smoothed.length)
      .map((face) => {
        const best = indexOfLargest(face.smoothed);
        const share = Math.round(100 * face.smoothed[best]);
        return t("saidFace", { n: face.id, label: this.names[best], share });
      })
      .join(". ");
  }

  /** Which expression each face has, without numbers: what is worth a new sentence. */
  gist() {
    return (this.faces ?? []).map((face) => `${face.id}:${indexOfLargest(face.smoothed)}`).join();
  }
}

/** Says in a live region what changes, at most every few seconds. */
export class Announcer {
  /**
   * @param {HTMLElement} region
   * @param {FaceTable} table
   */
  constructor(region, table) {
    this.region = region;
    this.table = table;
    /** @type {string | null} */
    this.gist = null;
    this.nextMs = 0;
  }

  /** Looks whether there is something new; call it as often as you like. */
  check() {
    const now = performance.now();
    if (now < this.nextMs || this.table.faces === null || this.table.gist() === this.gist) return;
    this.say(this.table.sentence());
    this.gist = this.table.gist();
  }

  /** @param {string} text */
  say(text) {
    this.region.textContent = text;
    this.nextMs = performance.now() + SAY_EVERY_MS;
  }
}

/**
 * @template {keyof HTMLElementTagNameMap} N
 * @param {N} name
 */
function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

/**
 * @param {string} text
 * @param {"col" | "row"} scope
 */
function heading(text, scope) {
  const made = element("th", text);
  made.scope = scope;
  return made;
}
