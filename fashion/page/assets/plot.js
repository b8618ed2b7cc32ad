"use strict";
/* A canvas or two for the many lines, and an SVG above them for axes and words. */

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} kind @param {Record<string, string | number>} attributes @param {string} [text] */
function shape(kind, attributes, text) {
  const made = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/**
 * @typedef {{box: HTMLElement, back: CanvasRenderingContext2D, front: CanvasRenderingContext2D, svg: SVGSVGElement,
 *   width: number, height: number}} Plot
 */

/** @param {string} id @returns {Plot} */
function makePlot(id) {
  const box = document.getElementById(id);
  const [back, front] = [document.createElement("canvas"), document.createElement("canvas")];
  const svg = shape("svg", { "aria-hidden": "true" });
  box.replaceChildren(back, front, svg);
  return { box, back: back.getContext("2d"), front: front.getContext("2d"), svg, width: 0, height: 0 };
}

/**
 * Fit canvases and SVG to the box. In print the box has another width: everything then scales as a picture would.
 * @param {Plot} plot
 */
function fit(plot) {
  plot.box.style.aspectRatio = "";
  const { width, height } = plot.box.getBoundingClientRect();
  plot.width = Math.max(Math.round(width), 200);
  plot.height = Math.max(Math.round(height), 120);
  const dense = Math.min(devicePixelRatio || 1, 2);
  plot.box.style.aspectRatio = `${plot.width} / ${plot.height}`;
  for (const context of [plot.back, plot.front]) {
    context.canvas.width = plot.width * dense;
    context.canvas.height = plot.height * dense;
    context.setTransform(dense, 0, 0, dense, 0, 0);
  }
  plot.svg.setAttribute("viewBox", `0 0 ${plot.width} ${plot.height}`);
  plot.svg.setAttribute("preserveAspectRatio", "none");
  plot.svg.replaceChildren();
}

/** @param {CanvasRenderingContext2D} context @param {Plot} plot */
function wipe(context, plot) {
  context.clearRect(0, 0, plot.width, plot.height);
}

/** How opaque one of so many lines is. @param {number} lines */
function opacityOf(lines) {
  return Math.min(0.9, Math.max(0.16, 9 / Math.sqrt(Math.max(lines, 1)) / 1.3));
}

function passingCount() {
  let found = 0;
  for (let trial = 0; trial < count; trial += 1) found += passing[trial];
  return found;
}
