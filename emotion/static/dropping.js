/** Files dragged onto the page: the whole window takes them, or the browser would leave the page for the file. */

/**
 * @param {HTMLElement} curtain shown while something is dragged
 * @param {(files: File[]) => void} onFiles called with what was dropped
 */
export function acceptDrops(curtain, onFiles) {
  let depth = 0; // dragenter and dragleave come for every element on the way
  for (const name of /** @type {const} */ (["dragenter", "dragover", "dragleave", "drop"])) {
    window.addEventListener(name, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      if (name === "dragenter") depth += 1;
      if (name === "dragleave") depth -= 1;
      if (name === "drop") depth = 0;
      curtain.hidden = depth <= 0;
      if (name === "drop") onFiles([...event.dataTransfer.files]);
    });
  }
}
