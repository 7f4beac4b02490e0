/** Draws a picture with its faces: a box each, and a panel with a bar for every class. */

import { pen } from "./elements.js";
import { pictureColours } from "./palette.js";

/**
 * @import { Face } from "./connection.js"
 * @typedef {{ w: number, h: number }} Size
 * @typedef {Size & { x: number, y: number }} Rect
 * @typedef {"right" | "left" | "below" | "above" | "inside"} Place of a panel, seen from its face
 * @typedef {object} Scene
 * @property {CanvasImageSource | null} picture
 * @property {number} width that the boxes are measured in
 * @property {number} height
 * @property {Face[]} faces
 * @property {string[]} classes
 * @property {string[]} labels the classes in the language of the page
 * @property {(id: number) => string} faceName
 * @property {boolean} mirrored
 */

const GROUND = "rgba(16, 18, 22, 0.78)";
const TRACK = "rgba(255, 255, 255, 0.2)";
const INK = "#ffffff";
const SOFT_INK = "#cdd1d8";
const ROW = 2; // height of a row, in font sizes
const MAX_RATIO = 2; // finer than two device pixels to a CSS pixel costs time and shows nothing

/**
 * @param {Rect} a
 * @param {Rect} b
 */
export function overlap(a, b) {
  const width = Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x);
  const height = Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y);
  return Math.max(width, 0) * Math.max(height, 0);
}

/**
 * Where a picture of the given size lies in a stage: as large as it goes, all of it, in the middle.
 * @param {number} width
 * @param {number} height
 * @param {Size} stage
 */
export function fit(width, height, stage) {
  const scale = Math.min(stage.w / width, stage.h / height);
  const [w, h] = [width * scale, height * scale];
  return { x: (stage.w - w) / 2, y: (stage.h - h) / 2, w, h, scale };
}

/**
 * Where the bars of a face go: beside, below, above or inside its box, where they cover least.
 * `before` is the place that it had, which it keeps unless another is clearly better: nothing may jump.
 * @param {Rect} box
 * @param {Size} size
 * @param {Size} stage
 * @param {Rect[]} taken
 * @param {number} gap
 * @param {Place} [before]
 * @returns {{ panel: Rect, place: Place }}
 */
export function placePanel(box, size, stage, taken, gap, before) {
  /** @type {[Place, number, number][]} */
  const places = [
    ["right", box.x + box.w + gap, box.y],
    ["left", box.x - gap - size.w, box.y],
    ["below", box.x, box.y + box.h + gap],
    ["above", box.x, box.y - gap - size.h],
    ["inside", box.x + gap, box.y + box.h - gap - size.h],
  ];
  const choices = places.map(([place, x, y], order) => {
    const panel = {
      x: Math.max(Math.min(x, stage.w - size.w), 0),
      y: Math.max(Math.min(y, stage.h - size.h), 0),
      ...size,
    };
    const others = taken.reduce((sum, other) => sum + overlap(panel, other), 0);
    const kept = place === before ? 0.25 * size.w * size.h : 0;
    const cost = overlap(panel, box) + 3 * others + order - kept;
    return { panel, place, cost };
  });
  return choices.reduce((best, choice) => (choice.cost < best.cost ? choice : best));
}

export class Painter {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = pen(canvas, { alpha: true });
    this.ratio = 1;
    /** @type {Map<number, Place>} */
    this.places = new Map();
    /** @type {Map<string, number>} */
    this.widths = new Map();
    /** @type {Scene | null} */
    this.last = null;
  }

  /** Makes the canvas as fine as the screen; true where its size changed (which empties it). */
  resize() {
    const ratio = Math.min(window.devicePixelRatio || 1, MAX_RATIO);
    const { clientWidth, clientHeight } = this.canvas;
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    this.ratio = ratio;
    if (this.canvas.width === width && this.canvas.height === height) return false;
    [this.canvas.width, this.canvas.height] = [width, height];
    return true;
  }

  /**
   * Paints a picture and its faces.
   * @param {Scene} scene
   */
  paint(scene) {
    this.resize();
    this.last = scene;
    const { context } = this;
    const stage = { w: this.canvas.clientWidth, h: this.canvas.clientHeight };
    if (!stage.w || !stage.h) return;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, stage.w, stage.h);
    const area = fit(scene.width, scene.height, stage);
    if (scene.picture) {
      context.save();
      if (scene.mirrored) {
        context.translate(stage.w, 0);
        context.scale(-1, 1);
      }
      context.imageSmoothingQuality = "high";
      context.drawImage(scene.picture, area.x, area.y, area.w, area.h);
      context.restore();
    }
    this.paintFaces(scene, area, stage);
  }

  /**
   * The last scene again: after a change of size, language or mirroring.
   * @param {Partial<Scene>} changes
   */
  repaint(changes = {}) {
    if (this.last) this.paint({ ...this.last, ...changes });
  }

  clear() {
    this.last = null;
    this.places.clear();
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /**
   * @param {Scene} scene
   * @param {Rect & { scale: number }} area of the picture
   * @param {Size} stage
   */
  paintFaces(scene, area, stage) {
    const { faces, classes, labels, faceName, mirrored } = scene;
    if (!faces.length || !classes.length) return;
    const colours = pictureColours(classes);
    const several = faces.length > 1;
    const fontPx = Math.max(11, Math.min(15, stage.w / 52));
    const size = this.panelSize(labels, fontPx, several);
    const boxes = faces.map(({ box: [left, top, width, height] }) => ({
      x: area.x + (mirrored ? scene.width - left - width : left) * area.scale,
      y: area.y + top * area.scale,
      w: width * area.scale,
      h: height * area.scale,
    }));
    /** @type {Rect[]} */
    const panels = [];
    const places = new Map();
    faces.forEach((face, index) => {
      const best = indexOfLargest(face.smoothed);
      this.paintBox(boxes[index], colours[best], fontPx);
      const taken = boxes.filter((_, other) => other !== index).concat(panels);
      const { panel, place } = placePanel(boxes[index], size, stage, taken, 8, this.places.get(face.id));
      panels.push(panel);
      places.set(face.id, place);
    });
    this.places = places;
    faces.forEach((face, index) => {
      this.paintPanel(panels[index], face, labels, colours, fontPx, several ? faceName(face.id) : "");
    });
  }

  /**
   * @param {Rect} box
   * @param {string} colour
   * @param {number} fontPx
   */
  paintBox(box, colour, fontPx) {
    const { context } = this;
    const radius = Math.min(box.w, box.h) / 12;
    const strokes = [
      { style: "rgba(0, 0, 0, 0.45)", width: 4.5 },
      { style: colour, width: 2.5 },
    ];
    for (const { style, width } of strokes) {
      context.strokeStyle = style;
      context.lineWidth = width * Math.max(fontPx / 13, 1);
      context.beginPath();
      context.roundRect(box.x, box.y, box.w, box.h, radius);
      context.stroke();
    }
  }

  /** @param {number} fontPx */
  font(fontPx, weight = 500) {
    return `${weight} ${fontPx}px ${getComputedStyle(document.body).fontFamily}`;
  }

  /**
   * @param {string[]} labels
   * @param {number} fontPx
   * @param {boolean} several
   * @returns {Size}
   */
  panelSize(labels, fontPx, several) {
    const key = `${fontPx} ${labels.join(" ")}`;
    let width = this.widths.get(key);
    if (width === undefined) {
      this.context.font = this.font(fontPx, 650);
      const widest = Math.max(...labels.map((label) => this.context.measureText(label).width));
      width = widest + this.context.measureText("  100").width;
      this.widths.set(key, width);
    }
    const rows = labels.length * ROW + (several ? 1.5 : 0);
    return { w: Math.ceil(width + 2 * fontPx), h: Math.ceil((rows + 0.9) * fontPx) };
  }

  /**
   * @param {Rect} panel
   * @param {Face} face
   * @param {string[]} labels
   * @param {string[]} colours
   * @param {number} fontPx
   * @param {string} title
   */
  paintPanel(panel, face, labels, colours, fontPx, title) {
    const { context } = this;
    const [left, right] = [panel.x + 0.8 * fontPx, panel.x + panel.w - 0.8 * fontPx];
    const best = indexOfLargest(face.smoothed);
    context.fillStyle = GROUND;
    context.beginPath();
    context.roundRect(panel.x, panel.y, panel.w, panel.h, 8);
    context.fill();
    context.textBaseline = "middle";
    let middle = panel.y + 1.1 * fontPx;
    if (title) {
      context.textAlign = "left";
      context.fillStyle = SOFT_INK;
      context.font = this.font(0.88 * fontPx);
      context.fillText(title, left, middle);
      middle += 1.5 * fontPx;
    }
    const barHeight = Math.max(3, 0.24 * fontPx);
    labels.forEach((label, index) => {
      const share = face.smoothed[index];
      context.font = this.font(fontPx, index === best ? 650 : 500);
      context.fillStyle = index === best ? INK : SOFT_INK;
      context.textAlign = "left";
      context.fillText(label, left, middle);
      context.textAlign = "right";
      context.fillText(String(Math.round(100 * share)), right, middle);
      const top = middle + 0.64 * fontPx;
      this.bar(left, top, right - left, barHeight, TRACK);
      this.bar(left, top, (right - left) * share, barHeight, colours[index]);
      middle += ROW * fontPx;
    });
  }

  /**
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {number} height
   * @param {string} style
   */
  bar(x, y, width, height, style) {
    if (width < 0.5) return;
    this.context.fillStyle = style;
    this.context.beginPath();
    this.context.roundRect(x, y, width, height, Math.min(height, width) / 2);
    this.context.fill();
  }
}

/** @param {number[]} values */
export function indexOfLargest(values) {
  return values.reduce((best, value, index) => (value > values[best] ? index : best), 0);
}
