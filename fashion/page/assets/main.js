"use strict";
/* Puts the panels together, draws them again when their room or theme changes, and follows a sweep that runs. */

(() => {
  recall();
  const draw = [parallelPanel(), curvesPanel(), slicesPanel()];
  const fill = tablePanel();
  filtersPanel();
  element("coordinates", HTMLElement).hidden = axes.length < 2; // there is nothing to compare
  element("curves-and-slices", HTMLElement).hidden = data.trials.every((trial) => trial.loss === null);
  const all = () => draw.forEach((each) => each());
  all();
  fill();
  if (Object.keys(view.filters).length || view.search) changed();

  let resizing = 0;
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar comes and goes
    width = innerWidth;
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(all);
  });
  darkTheme.addEventListener("change", all);
  const paint = (/** @type {boolean} */ paper) => {
    printing = paper;
    if (darkTheme.matches) all();
  };
  addEventListener("beforeprint", () => paint(true));
  addEventListener("afterprint", () => paint(false));

  if (data.watch) {
    // A page from a disk can't ask whether its file has changed: it loads itself again, unless somebody is using it.
    const follow = element("follow", HTMLInputElement);
    let touched = 0;
    for (const kind of ["pointerdown", "keydown", "input"]) addEventListener(kind, () => { touched = Date.now(); });
    setInterval(() => {
      if (!follow.checked || document.hidden || Date.now() - touched < 5000) return;
      rememberNow();
      location.reload();
    }, data.watch * 1000);
  }
  document.documentElement.dataset.ready = "yes";
})();
