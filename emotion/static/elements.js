/** The elements of index.html: one that is missing, or of another kind, is a fault of ours and said at once. */

/**
 * The element with an id.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @param {new () => T} [kind] its class, where more than HTMLElement is needed
 * @returns {T}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof (kind ?? HTMLElement))) throw new TypeError(`index.html has no fitting element ${id}`);
  return /** @type {T} */ (element);
}

/**
 * The first element inside another that a selector finds.
 * @param {Element} parent
 * @param {string} selector
 */
export function inside(parent, selector) {
  const element = parent.querySelector(selector);
  if (!element) throw new TypeError(`${parent.id || parent.tagName} has no ${selector}`);
  return element;
}

/**
 * The pen of a canvas.
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} [settings]
 */
export function pen(canvas, settings) {
  const context = canvas.getContext("2d", settings);
  if (!context) throw new TypeError("this browser draws nothing on a canvas");
  return context;
}
