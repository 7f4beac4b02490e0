/** The colour number (1 to 8 of style.css) of each class: the five have their own, others take what is left. */

/** @type {Record<string, number>} */
const OWN = { happy: 1, sad: 2, neutral: 3, embarrassed: 4, anxiety: 5 };
const COUNT = 8;

/** @param {string[]} classes */
export function colourNumbers(classes) {
  const left = Array.from({ length: COUNT }, (_, k) => k + 1).filter((n) => !Object.values(OWN).includes(n));
  let others = 0;
  return classes.map((name) => OWN[name] ?? left[others++ % left.length]);
}

/**
 * The colours for panels in the picture, in the order of the classes.
 * @param {string[]} classes
 */
export function pictureColours(classes) {
  const style = getComputedStyle(document.documentElement);
  return colourNumbers(classes).map((n) => style.getPropertyValue(`--picture-${n}`).trim());
}
