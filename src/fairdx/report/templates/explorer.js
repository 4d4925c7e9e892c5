"use strict";
// Writes the figures at the slider's threshold into the cells that name a series. Numbers are written as in
// fairdx.report.numbers: value times scale, fixed digits, a true minus sign.
(() => {
  const write = (value, [scale, digits, signed]) => {
    if (value === null) return "–";
    const text = (Math.abs(value) * scale).toFixed(digits);
    const zero = Number(text) === 0;
    return (value < 0 && !zero ? "\u2212" : signed && !zero ? "+" : "") + text;
  };
  const interval = (low, high, format) =>
    low === null || high === null ? "no interval" : `${write(low, format)}\u00a0to\u00a0${write(high, format)}`;

  for (const root of document.querySelectorAll("[data-explorer]")) {
    const data = JSON.parse(document.getElementById(`data-${root.dataset.explorer}`).textContent);
    const slider = root.querySelector("input[type=range]");
    const output = root.querySelector("output");
    const cells = [...root.querySelectorAll("[data-series]")].map((cell) => ({
      value: cell.querySelector(".value"), ends: cell.querySelector(".ends"), series: data.series[cell.dataset.series],
    }));
    const rules = [...root.querySelectorAll("[data-span]")];

    const show = () => {
      const i = Number(slider.value);
      const threshold = data.thresholds[i];
      const text = String(Number(threshold.toPrecision(4)));
      output.textContent = text;
      slider.setAttribute("aria-valuetext", `threshold ${text}`);
      for (const { value, ends, series } of cells) {
        value.textContent = write(series.v[i], series.f);
        ends.textContent = interval(series.l[i], series.h[i], series.f);
      }
      for (const rule of rules) {
        rule.setAttribute("transform", `translate(${Math.min(Math.max(threshold, 0), 1) * rule.dataset.span} 0)`);
      }
    };
    slider.disabled = false;
    slider.addEventListener("input", show);
    const back = root.querySelector("button");
    back.hidden = false;
    back.addEventListener("click", () => { slider.value = data.start; show(); });
    slider.value = data.start;
    show();
  }
})();
