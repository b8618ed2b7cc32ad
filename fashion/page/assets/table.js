"use strict";
/* The trials that pass, sorted. It waits until a brush rests, since building rows costs as much as all lines. */

const FIRST_ROWS = 100;

function tablePanel() {
  const table = element("trials", HTMLTableElement);
  const head = checked(table.querySelector("thead tr"), HTMLTableRowElement, "of the table's head");
  const body = checked(table.querySelector("tbody"), HTMLTableSectionElement, "of the table's body");
  const box = checked(table.parentElement, HTMLElement, "around the table");
  const more = element("more", HTMLButtonElement);
  const search = element("search", HTMLInputElement);
  let everything = false;

  /** @type {{name: string, text: boolean, value: (trial: number) => any, show: (trial: number) => string}[]} */
  const columns = [
    { name: "trial", text: false, value: (trial) => data.trials[trial].order, show: (trial) => data.trials[trial].name },
    { name: data.metric, text: false, value: (trial) => data.trials[trial].loss, show: lossText },
    { name: "accuracy", text: false, value: (trial) => data.trials[trial].accuracy,
      show: (trial) => (data.trials[trial].accuracy === null ? "–" : (100 * data.trials[trial].accuracy).toFixed(2) + " %") },
    { name: "epochs", text: false, value: (trial) => data.trials[trial].epoch,
      show: (trial) => data.trials[trial].epoch + "/" + data.trials[trial].epochs },
    { name: "status", text: true, value: (trial) => data.trials[trial].status, show: (trial) => data.trials[trial].status },
    ...axes.slice(0, -1).map((axis) => ({ name: axis.name, text: axis.kind === "category",
      value: (/** @type {number} */ trial) => (axis.values[trial] === null || axis.kind !== "category"
        ? axis.values[trial] : axis.labels[axis.values[trial]]),
      show: (/** @type {number} */ trial) => valueText(axis, axis.values[trial]) })),
  ];

  /** @param {number} trial */
  function lossText(trial) {
    const { loss, half } = data.trials[trial];
    if (loss === null) return "–";
    return loss.toFixed(4) + (half === null ? "" : " ± " + half.toFixed(3));
  }

  const heads = columns.map((column) => {
    const cell = document.createElement("th");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = column.name;
    cell.scope = "col";
    cell.className = column.text ? "text" : "";
    cell.append(button);
    button.addEventListener("click", () => {
      view.down = view.sort === column.name ? !view.down : false;
      view.sort = column.name;
      fill();
      remember();
    });
    head.append(cell);
    return { cell, button };
  });

  function fill() {
    const sorted = columns.find((column) => column.name === view.sort) || columns[1];
    heads.forEach(({ cell, button }, index) => {
      const here = columns[index] === sorted;
      if (here) cell.setAttribute("aria-sort", view.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
      button.textContent = columns[index].name + (here ? (view.down ? " ▼" : " ▲") : "");
    });
    const rows = [...Array(count).keys()].filter((trial) => passing[trial]);
    const sign = view.down ? -1 : 1;
    rows.sort((a, b) => {
      const [left, right] = [sorted.value(a), sorted.value(b)];
      if (left === null || right === null) return (left === null ? 1 : 0) - (right === null ? 1 : 0) || a - b;
      return (left < right ? -sign : left > right ? sign : 0) || a - b;
    });
    const shown = everything ? rows : rows.slice(0, FIRST_ROWS);
    body.replaceChildren(...shown.map(row));
    box.style.height = Math.min(430, 36 + 31 * Math.max(shown.length, 1)) + "px";
    more.hidden = shown.length === rows.length;
    more.textContent = `Show all ${rows.length}`;
  }

  /** @param {number} trial */
  function row(trial) {
    const made = document.createElement("tr");
    made.className = [data.trials[trial].tied ? "tied" : "", data.trials[trial].winner ? "winner" : ""].join(" ").trim();
    for (const column of columns) {
      const cell = document.createElement("td");
      if (column.text) cell.className = "text";
      cell.textContent = column.show(trial);
      made.append(cell);
    }
    if (data.trials[trial].reason) made.title = data.trials[trial].reason;
    return made;
  }

  more.addEventListener("click", () => { everything = true; fill(); });
  search.value = view.search;
  search.addEventListener("input", () => { view.search = search.value; changed(); });

  listeners.push(atRest(150, fill));
  return fill;
}
