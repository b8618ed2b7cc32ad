"use strict";
/* A canvas or two for the many lines, and an SVG above them for axes and words. */

/**
 * @typedef {{box: HTMLElement, back: CanvasRenderingContext2D, front: CanvasRenderingContext2D, svg: SVGSVGElement,
 *   width: number, height: number}} Plot
 */

/** @param {string} id @returns {Plot} */
function makePlot(id) {
  const box = element(id, HTMLElement);
  const svg = shape("svg", { "aria-hidden": "true" });
  const [back, front] = [canvas(), canvas()];
  box.replaceChildren(back.canvas, front.canvas, svg);
  return { box, back, front, svg, width: 0, height: 0 };
}

function canvas() {
  const context = document.createElement("canvas").getContext("2d");
  if (!context) throw new Error("this browser draws nothing");
  return context;
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

/**
 * A line a trial: all of them faintly on the back, those that pass in their colours before it, and the winner on top.
 * @param {Plot} plot @param {(context: CanvasRenderingContext2D, trial: number) => void} line strokes one
 * @param {number} strength of the lines that pass, 1 or more
 */
function trialLines(plot, line, strength = 1) {
  function all() {
    wipe(plot.back, plot);
    plot.back.strokeStyle = colour("--dim");
    plot.back.lineWidth = 1;
    plot.back.globalAlpha = opacityOf(count) * 0.28;
    for (const trial of drawOrder) line(plot.back, trial);
    those();
  }

  function those() {
    const context = plot.front;
    wipe(context, plot);
    const colours = trialColours();
    const shown = passingCount();
    plot.back.canvas.style.visibility = shown === count ? "hidden" : "visible";
    context.lineWidth = shown < 30 ? 1.6 : 1;
    context.globalAlpha = Math.min(0.9, opacityOf(shown) * strength);
    for (const trial of drawOrder) {
      if (!passing[trial] || trial === winner) continue;
      context.strokeStyle = colours[trial];
      line(context, trial);
    }
    if (winner >= 0 && passing[winner]) {
      context.globalAlpha = 1;
      context.lineWidth = 2.4;
      context.strokeStyle = colour("--winner");
      line(context, winner);
    }
  }

  return { all, those };
}

function passingCount() {
  let found = 0;
  for (let trial = 0; trial < count; trial += 1) found += passing[trial];
  return found;
}
