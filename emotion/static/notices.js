/** What the stage says: a card over the picture with something to do, and a line at its foot. */

import { byId } from "./elements.js";
import { language, t } from "./texts.js";

/**
 * @import { Words } from "./connection.js"
 * @import { Key, Values } from "./texts.js"
 * @typedef {object} Card
 * @property {Key} title
 * @property {Key} [text]
 * @property {Values} [values] of the text
 * @property {Words} [words] in place of the text
 * @property {() => string} [commands] lines to paste
 */

const HINT_MS = 6000;

export class Notices {
  /** @param {() => void} onChange called when a card comes or goes */
  constructor(onChange) {
    /** @type {(Card & { action: () => void }) | null} */
    this.card = null;
    this.onChange = onChange;
    this.hintTimer = 0;
    byId("message-action").addEventListener("click", () => this.card?.action());
    byId("message-close").addEventListener("click", () => this.hide());
  }

  get isOpen() {
    return this.card !== null;
  }

  /**
   * Shows a card, which also is said.
   * @param {Card} card
   * @param {() => void} action what its button does
   */
  show(card, action) {
    this.card = { ...card, action };
    byId("message").hidden = false;
    this.onChange();
    this.render();
    byId("alert").textContent = `${byId("message-title").textContent}. ${byId("message-text").textContent}`;
    byId("message-action").focus({ preventScroll: true });
  }

  hide() {
    this.card = null;
    byId("message").hidden = true;
    byId("alert").textContent = "";
    this.onChange();
  }

  /** The words again, after a change of language. */
  render() {
    if (!this.card) return;
    const { title, text, values, words, commands } = this.card;
    byId("message-title").textContent = t(title);
    byId("message-text").textContent = words ? (words[language()] ?? words.en) : text ? t(text, values) : "";
    byId("message-commands").hidden = !commands;
    byId("message-commands").textContent = commands ? commands() : "";
    byId("message-action").textContent = t("again");
  }

  /**
   * A line at the foot of the picture, for some seconds or until the next one; "" takes it away.
   * @param {string} text
   */
  hint(text, isLasting = false) {
    clearTimeout(this.hintTimer);
    byId("hint").textContent = text;
    byId("hint").hidden = !text;
    if (text && !isLasting) this.hintTimer = setTimeout(() => this.hint(""), HINT_MS);
  }
}
