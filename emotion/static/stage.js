/** The stage: which picture is on it, with which faces, and what lies over it. */

import { Painter } from "./drawing.js";
import { byId } from "./elements.js";
import { Announcer, FaceTable } from "./faces.js";
import { Notices } from "./notices.js";
import { changed, state } from "./state.js";
import { t } from "./texts.js";
import { Player } from "./uploads.js";

/**
 * @import { Face } from "./connection.js"
 * @import { Scene } from "./drawing.js"
 * @import { Mode } from "./state.js"
 */

export const stage = byId("stage");
export const painter = new Painter(byId("canvas", HTMLCanvasElement));
export const table = new FaceTable();
export const announcer = new Announcer(byId("announce"), table);
export const notices = new Notices(showWelcome);
export const player = new Player({
  video: byId("clip", HTMLVideoElement),
  strip: byId("strip", HTMLCanvasElement),
  seek: byId("seek", HTMLInputElement),
  play: byId("play", HTMLButtonElement),
  output: byId("clock"),
  onFrame: (picture, faces, result) => showScene(scene(picture, result.width, result.height, faces)),
});

/**
 * @param {CanvasImageSource | null} picture
 * @param {number} width that the boxes are measured in
 * @param {number} height
 * @param {Face[]} faces
 * @returns {Scene}
 */
export function scene(picture, width, height, faces) {
  const classes = state.model?.classes ?? [];
  const mirrored = state.mode === "live" && state.isMirrored;
  return {
    picture,
    width,
    height,
    faces,
    classes,
    labels: table.names,
    faceName: (id) => t("face", { n: id }),
    mirrored,
  };
}

/** @param {Scene} what */
export function showScene(what) {
  painter.paint(what);
  table.show(what.faces);
}

/** @param {Mode} next */
export function setMode(next) {
  state.mode = next;
  stage.dataset.mode = next;
  showWelcome();
  byId("timeline").hidden = next !== "video";
  if (next === "idle") {
    painter.clear();
    table.show(null);
    stage.style.aspectRatio = "";
  }
  changed();
}

export function showWelcome() {
  byId("welcome").hidden = state.mode !== "idle" || notices.isOpen || Boolean(state.upload?.isSending);
}

/**
 * @param {number} width
 * @param {number} height
 */
export function setShape(width, height) {
  stage.style.aspectRatio = `${width} / ${height}`;
  painter.resize();
}
