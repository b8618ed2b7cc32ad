"use strict";
/* What the page shows: the trials, which of them pass every filter, and who is told when that changes. */

/**
 * @typedef {{low: number, high: number, unset: boolean} | {picked: number[]}} AxisFilter
 * A numeric axis keeps positions from low to high, and trials without a value where unset. A category keeps the labels
 * in picked, of which -1 stands for "not set".
 */

/**
 * @typedef {{name: string, order: number, loss: number | null, half: number | null, accuracy: number | null,
 *   epoch: number, epochs: number, status: string, reason?: string, tied?: boolean, winner?: boolean,
 *   words: string, curve: (number | null)[]}} TrialRow
 * loss: the lowest. half: of its interval's width. epoch: how many it has reported, of so many epochs. words: what the
 * search looks at. curve: the metric by epoch.
 */

/**
 * @typedef {{metric: string, axes: Axis[], trials: TrialRow[], rungs: number[], fraction: boolean, watch: number}} PageData
 * rungs: epochs, or with `fraction` % of a trial's schedule. watch: seconds between two loads, 0 for never.
 */

/** @type {PageData} */
const data = JSON.parse(element("data", HTMLElement).textContent || "");
const axes = data.axes;
const count = data.trials.length;
/** Positions of every trial on every axis, once. */
const places = axes.map((axis) => Float32Array.from(axis.values, (value) => positionOf(axis, value)));
const passing = new Uint8Array(count).fill(1);
/** @type {(() => void)[]} */
const listeners = [];

const view = {
  /** @type {Record<string, AxisFilter>} */
  filters: {},
  slice: "",
  sort: "",
  down: false,
  search: "",
};

/** @param {number} axis @returns {AxisFilter | undefined} */
function filterOf(axis) {
  return view.filters[axes[axis].name];
}

/** @param {number} axis @param {AxisFilter | null} filter */
function setFilter(axis, filter) {
  const { [axes[axis].name]: _, ...others } = view.filters;
  view.filters = filter === null ? others : { ...others, [axes[axis].name]: filter };
  changed();
}

/** @param {AxisFilter} filter @param {number} axis @param {number} trial @returns {boolean} */
function admits(filter, axis, trial) {
  if ("picked" in filter) {
    const value = axes[axis].values[trial];
    return filter.picked.includes(value === null ? -1 : value);
  }
  const at = places[axis][trial];
  return at === Math.fround(LANE) ? filter.unset : at >= filter.low - 1e-6 && at <= filter.high + 1e-6;
}

/** Every panel that filters is told in the next frame, once, however many events came before it. */
let waiting = false;
function changed() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const active = axes.map((_, axis) => filterOf(axis));
    const words = view.search.trim().toLowerCase();
    for (let trial = 0; trial < count; trial += 1) {
      let keep = !words || data.trials[trial].words.includes(words);
      for (let axis = 0; keep && axis < axes.length; axis += 1) {
        const filter = active[axis];
        if (filter) keep = admits(filter, axis, trial);
      }
      passing[trial] = keep ? 1 : 0;
    }
    for (const listener of listeners) listener();
    remember();
  });
}

/** The view lives in the address after #, so that a page that follows a sweep, or a link, opens as it was. */
const remember = atRest(300, rememberNow);

/**
 * A filter as the address has it, in values and labels: positions move when a sweep has new trials.
 * @typedef {{labels: (string | null)[]} | {from: number | null, to: number | null, unset: boolean, lane: boolean}} KeptFilter
 */

/** @param {Axis} axis @param {AxisFilter} filter @returns {KeptFilter} */
function keptFilter(axis, filter) {
  if ("picked" in filter) return { labels: filter.picked.map((each) => (each < 0 ? null : axis.labels[each])) };
  return { from: filter.low > 0 ? valueAt(axis, filter.low) : null, to: filter.high < 1 ? valueAt(axis, filter.high) : null,
    unset: filter.unset, lane: filter.high < filter.low };
}

/** @param {Axis} axis @param {any} kept what somebody's address says @returns {AxisFilter | null} null for no filter */
function filterFrom(axis, kept) {
  if (axis.kind === "category") {
    if (!Array.isArray(kept.labels)) return null;
    const at = kept.labels.map((/** @type {string | null} */ each) => (each === null ? -1 : axis.labels.indexOf(each)));
    return { picked: at.filter((/** @type {number} */ each, /** @type {number} */ index) =>
      each >= 0 || kept.labels[index] === null) };
  }
  if (kept.lane) return { low: 0, high: -0.1, unset: true };
  const usable = (/** @type {any} */ value) => typeof value === "number" && (axis.kind !== "log" || value > 0);
  if (!usable(kept.from) && !usable(kept.to) && kept.unset !== false) return null;
  return { low: usable(kept.from) ? positionOf(axis, kept.from) : 0, high: usable(kept.to) ? positionOf(axis, kept.to) : 1,
    unset: kept.unset === true };
}

function rememberNow() {
  const filters = Object.fromEntries(axes.filter((axis) => axis.name in view.filters)
    .map((axis) => [axis.name, keptFilter(axis, view.filters[axis.name])]));
  const plain = JSON.stringify({ ...view, filters, y: data.watch ? Math.round(scrollY) : 0 });
  history.replaceState(null, "", "#" + encodeURIComponent(plain));
}

function recall() {
  if (location.hash.length < 2 || !location.hash.startsWith("#%7B")) return;
  let found;
  try {
    found = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  } catch {
    return; // somebody else's address
  }
  for (const [name, kept] of Object.entries(found.filters || {})) {
    const axis = axes.find((each) => each.name === name);
    const filter = axis && kept ? filterFrom(axis, kept) : null;
    if (filter) view.filters[name] = filter;
  }
  if (axes.some((axis) => axis.name === found.slice)) view.slice = found.slice;
  if (typeof found.sort === "string") view.sort = found.sort;
  if (typeof found.search === "string") view.search = found.search;
  view.down = found.down === true;
  if (found.y) requestAnimationFrame(() => scrollTo(0, found.y));
}

/** The style sheet's colours for paper: a canvas is painted before the print's style applies. */
const PAPER = { "--dim": "#4a5058", "--winner": "#b3400a" };

/** @param {"--dim" | "--winner"} name @returns {string} a colour of the style sheet */
function colour(name) {
  return printing ? PAPER[name] : getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Cividis (Nunez et al. 2018), which people with any colour vision read; the best trial stands out from the paper. */
const RAMP = [[0, 32, 77], [30, 58, 111], [77, 84, 108], [109, 110, 114], [145, 137, 115], [186, 166, 101],
  [222, 196, 80], [240, 214, 70]];
const darkTheme = matchMedia("(prefers-color-scheme: dark)");

/** @param {number} share 0 for the best @returns {string} */
function rampColour(share) {
  const end = RAMP.length - 1;
  const at = Math.min(1, Math.max(0, onDark() ? 0.93 * (1 - share) + 0.07 : share)) * end;
  const low = Math.min(end - 1, Math.floor(at));
  const mixed = RAMP[low].map((part, k) => Math.round(part + (at - low) * (RAMP[low + 1][k] - part)));
  return "rgb(" + mixed.join(",") + ")";
}

let printing = false;
function onDark() {
  return darkTheme.matches && !printing;
}

/** The share of each trial on the ramp: by rank, so that a few outliers do not use up the colours. */
const shares = (() => {
  const loss = (/** @type {number} */ trial) => data.trials[trial].loss ?? Infinity;
  const order = [...data.trials.keys()].filter((each) => loss(each) < Infinity).sort((a, b) => loss(a) - loss(b));
  const found = new Float32Array(count).fill(1);
  order.forEach((trial, rank) => { found[trial] = order.length > 1 ? rank / (order.length - 1) : 0; });
  return found;
})();
/** Worst first, so that the best are drawn on top. */
const drawOrder = [...data.trials.keys()].sort((a, b) => shares[b] - shares[a]);
const winner = data.trials.findIndex((trial) => trial.winner);

/** @returns {string[]} the colour of each trial in the present theme */
function trialColours() {
  const known = new Map();
  return Array.from(shares, (share) => {
    const step = Math.round(share * 40);
    if (!known.has(step)) known.set(step, rampColour(step / 40));
    return known.get(step);
  });
}
