"use strict";
/* Axes: from a trial's value to a position in [0, 1], with ticks. A value that is not set has the position LANE. */

const LANE = -0.13;

/**
 * @typedef {{name: string, kind: "category" | "linear" | "log", values: (number | null)[], labels: string[],
 *   low: number, high: number, open: boolean}} Axis
 * values: of each trial; for a category the index of its label. open: values above `high` are drawn at it.
 */

/** @param {Axis} axis @param {number | null} value @returns {number} position in [0, 1], or LANE */
function positionOf(axis, value) {
  if (value === null) return LANE;
  if (axis.kind === "category") return (value + 0.5) / axis.labels.length;
  const [low, high, at] = axis.kind === "log"
    ? [Math.log(axis.low), Math.log(axis.high), Math.log(value)] : [axis.low, axis.high, value];
  if (high === low) return 0.5;
  return Math.min(1, Math.max(0, (at - low) / (high - low)));
}

/** @param {Axis} axis @param {number} position @returns {number} the value there, of a numeric axis */
function valueAt(axis, position) {
  const share = Math.min(1, Math.max(0, position));
  if (axis.kind === "log") return axis.low * Math.pow(axis.high / axis.low, share);
  return axis.low + share * (axis.high - axis.low);
}

/** @param {number} low @param {number} high @param {number} most @returns {number[]} round numbers from low to high */
function roundTicks(low, high, most) {
  if (!(high > low)) return [low];
  const rough = (high - low) / most;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough * 0.999) || 10 * power;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

/** @param {Axis} axis @param {number} most @returns {{at: number, text: string}[]} */
function ticksOf(axis, most) {
  if (axis.kind === "category") {
    const every = Math.max(1, Math.ceil(axis.labels.length / Math.max(most, 1)));
    return axis.labels.map((text, index) => ({ at: positionOf(axis, index), text }))
      .filter((_, index) => index % every === 0);
  }
  let values = [...new Set(axis.values)].filter((each) => each !== null);
  // A choice of a few round numbers has a tick at each.
  if (values.length && values.length <= most && values.every((each) => Number(each.toPrecision(3)) === each)) {
    values.sort((a, b) => a - b);
  } else if (axis.kind === "log") {
    values = [];
    for (let power = Math.ceil(Math.log10(axis.low) - 1e-9); power <= Math.log10(axis.high) + 1e-9; power += 1) {
      values.push(Math.pow(10, power));
    }
    if (values.length < 2) values = [axis.low, ...values, axis.high];
    const every = Math.ceil(values.length / Math.max(most, 2));
    values = values.filter((_, index) => index % every === 0);
  } else {
    values = roundTicks(axis.low, axis.high, most);
  }
  const ticks = values.map((value) => ({ at: positionOf(axis, value), text: shortNumber(value) }));
  if (axis.open && ticks.length) {
    const last = ticks[ticks.length - 1];
    if (last.at > 0.93) ticks.pop();
    ticks.push({ at: 1, text: "≥ " + shortNumber(axis.high) });
  }
  return ticks;
}

/** @param {number} value @returns {string} three digits, as people write them */
function shortNumber(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace(".0e", "e").replace("e+", "e").replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

/** @param {Axis} axis @param {number | null} value @returns {string} */
function valueText(axis, value) {
  if (value === null) return "–";
  return axis.kind === "category" ? axis.labels[value] : shortNumber(value);
}
