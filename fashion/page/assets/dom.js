"use strict";
/* Elements of page.html and of drawings. One that is missing is a mistake of the page: it must not pass in silence. */

const SVG = "http://www.w3.org/2000/svg";

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function element(id, kind) {
  return checked(document.getElementById(id), kind, id);
}

/** @template {Element} T @param {Element | null} found @param {new () => T} kind @param {string} name @returns {T} */
function checked(found, kind, name) {
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} ${name}`);
  return found;
}

/**
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} kind @param {Record<string, string | number>} attributes @param {string} [text]
 */
function shape(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/**
 * Work that waits until nobody has asked for it for so many milliseconds. While an axis is brushed it waits for longer:
 * a frame of a busy machine takes as long as such a rest, and the work would then be done in every frame.
 * @param {number} wait @param {() => void} work @returns {() => void} asks for it
 */
function atRest(wait, work) {
  let pending = 0;
  return () => {
    clearTimeout(pending);
    pending = setTimeout(work, brushing.now ? 3 * wait + 300 : wait);
  };
}

/** Whether an axis is being brushed with the pointer. */
const brushing = { now: false };
