/** A picture or video of the user's: sent, shown with its faces, put away. */

import { byId } from "./elements.js";
import { askForModel, showNoModel } from "./model.js";
import { announcer, notices, player, scene, setMode, setShape, showScene, showWelcome, stage } from "./stage.js";
import { state } from "./state.js";
import { t } from "./texts.js";
import { analyseFile, UploadError } from "./uploads.js";

/**
 * @import { Upload } from "./state.js"
 * @import { Result } from "./uploads.js"
 */

/**
 * Analyses a file, the camera being off.
 * @param {File} file
 * @param {boolean} hasOthers more were chosen, which is said
 */
export async function takeFile(file, hasOthers = false) {
  notices.hide();
  leaveUpload();
  /** @type {Upload} */
  const own = { name: file.name, isSending: true, result: null, cancel: () => {} };
  state.upload = own;
  byId("working").hidden = false;
  showWelcome();
  byId("cancel").focus({ preventScroll: true });
  const job = analyseFile(file, (share) => {
    if (own === state.upload) showProgress(share);
  });
  own.cancel = job.cancel;
  showProgress(0);
  try {
    own.result = await job.promise;
    if (own === state.upload) await showUpload(file, own, own.result);
    if (own === state.upload && hasOthers) notices.hint(t("tooManyFiles", { name: file.name }));
  } catch (error) {
    if (own === state.upload) uploadFailed(error, () => takeFile(file));
  } finally {
    if (own === state.upload || !state.upload) byId("working").hidden = true;
  }
}

/** Puts the uploaded picture or video away; nothing where there is none. */
export function leaveUpload() {
  if (!state.upload) return;
  const { isSending, cancel } = state.upload;
  state.upload = null;
  if (isSending) cancel();
  byId("working").hidden = true;
  player.close();
  notices.hint("");
  setMode("idle");
}

/** Says how far the upload is again, after a change of language. */
export function renderProgress() {
  const bar = byId("progress", HTMLProgressElement);
  if (state.upload?.isSending) showProgress(bar.hasAttribute("value") ? bar.value : null);
}

/** @param {number | null} share null: all is sent and is analysed now */
function showProgress(share) {
  const bar = byId("progress", HTMLProgressElement);
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  const name = state.upload?.name ?? "";
  byId("working-title").textContent = t(share === null ? "analysing" : "sending", { name });
}

/**
 * @param {File} file
 * @param {Upload} upload
 * @param {Result} result
 */
async function showUpload(file, upload, result) {
  // The model may be another one than the page has asked for.
  if (result.classes.join() !== state.model?.classes.join()) await askForModel();
  upload.isSending = false;
  setShape(result.width, result.height);
  byId("working").hidden = true;
  if (result.kind === "video") {
    setMode("video");
    if (!(await player.open(file, result)) && state.upload === upload) notices.hint(t("unplayable"), true);
  } else {
    setMode("picture");
    const picture = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
    showScene(scene(picture, result.width, result.height, result.faces));
    if (!result.faces.length) notices.hint(t("noFaceInFile"));
  }
  announcer.check();
  stage.focus({ preventScroll: true });
}

/**
 * @param {unknown} error
 * @param {() => void} again
 */
function uploadFailed(error, again) {
  state.upload = null;
  setMode("idle");
  const { code, words } = error instanceof UploadError ? error : { code: "network", words: null };
  if (code === "cancelled") return;
  if (code === "no_model") showNoModel();
  else if (words) notices.show({ title: "refusedNow", words }, again);
  else notices.show({ title: "networkTitle", text: "network" }, again);
}
