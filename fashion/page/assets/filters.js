"use strict";
/* The same filters as a form: for the keyboard, for touch, and for exact values. */

function filtersPanel() {
  const box = element("filters", HTMLElement);
  const form = checked(box.parentElement, HTMLDetailsElement, "around the filters");
  const text = element("passing", HTMLElement);
  /** @type {(() => void)[]} */
  const show = [];

  axes.forEach((axis, index) => {
    const group = document.createElement("fieldset");
    const legend = document.createElement("legend");
    legend.textContent = axis.name;
    group.append(legend);
    show.push(axis.kind === "category" ? boxes(group, axis, index) : bounds(group, axis, index));
    box.append(group);
  });

  /** @param {HTMLElement} parent @param {string} words @param {string} type */
  function field(parent, words, type) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    input.type = type;
    if (type === "checkbox") label.append(input, words);
    else label.append(words + " ", input);
    parent.append(label);
    return input;
  }

  /** @param {HTMLElement} group @param {Axis} axis @param {number} index */
  function boxes(group, axis, index) {
    const values = [...axis.labels.keys(), ...(axis.values.includes(null) ? [-1] : [])];
    const inputs = values.map((value) => {
      const input = field(group, value < 0 ? "not set" : axis.labels[value], "checkbox");
      input.addEventListener("change", () => {
        const picked = values.filter((_, each) => inputs[each].checked);
        setFilter(index, picked.length === values.length ? null : { picked });
      });
      return input;
    });
    return () => {
      const filter = filterOf(index);
      inputs.forEach((input, each) => {
        input.checked = !filter || !("picked" in filter) || filter.picked.includes(values[each]);
      });
    };
  }

  /** @param {HTMLElement} group @param {Axis} axis @param {number} index */
  function bounds(group, axis, index) {
    const low = field(group, "from", "number");
    const high = field(group, "to", "number");
    const unset = axis.values.includes(null) ? field(group, "also where it is not set", "checkbox") : null;
    for (const input of [low, high]) {
      input.step = "any";
    }
    low.placeholder = shortNumber(axis.low);
    high.placeholder = shortNumber(axis.high);
    const read = () => {
      if (low.value === "" && high.value === "" && (!unset || unset.checked)) {
        setFilter(index, null);
        return;
      }
      const at = (/** @type {HTMLInputElement} */ input, /** @type {number} */ otherwise) =>
        (input.value === "" || !(Number(input.value) > 0 || axis.kind !== "log") ? otherwise
          : positionOf(axis, Number(input.value)));
      setFilter(index, { low: at(low, 0), high: at(high, 1), unset: unset ? unset.checked : false });
    };
    for (const input of [low, high, ...(unset ? [unset] : [])]) input.addEventListener("change", read);
    return () => {
      const filter = filterOf(index);
      const numeric = filter && "low" in filter ? filter : null;
      const value = (/** @type {number} */ at) => String(Number(valueAt(axis, at).toPrecision(4)));
      if (document.activeElement !== low) low.value = numeric && numeric.low > 0 ? value(numeric.low) : "";
      if (document.activeElement !== high) high.value = numeric && numeric.high < 1 ? value(numeric.high) : "";
      if (unset) unset.checked = numeric ? numeric.unset : true;
    };
  }

  element("clear", HTMLButtonElement).addEventListener("click", () => {
    view.filters = {};
    view.search = "";
    element("search", HTMLInputElement).value = "";
    changed();
  });

  const update = atRest(80, () => {
    text.textContent = `${passingCount()} of ${count} trial${count === 1 ? "" : "s"}`;
    if (form.open) for (const each of show) each();
  });
  form.addEventListener("toggle", update);
  listeners.push(update);
  update();
}
