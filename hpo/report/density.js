// What stands for trials where they are too many to be seen one by one: hexagons, quantile bands, bundles of lines.
const HEXAGON = 6; // pixels from its centre to a corner
const STEPS = 48; // of an axis, for bundles

// Cells of a grid of hexagons with the points in each: `x` and `y` give a trial's place, `weigh` what is averaged.
function hexagons(trials, x, y, weigh = null) {
  const wide = Math.sqrt(3) * HEXAGON, high = 1.5 * HEXAGON, cells = new Map();
  for (const t of trials) {
    const px = x(t), py = y(t);
    if (!(Number.isFinite(px) && Number.isFinite(py))) continue;
    let row = Math.round(py / high), column = Math.round(px / wide - (row & 1) / 2);
    const dy = py / high - row;
    if (Math.abs(dy) * 3 > 1) { // near an edge above or below: the next row's cell may be closer
      const other = row + (dy < 0 ? -1 : 1), near = Math.round(px / wide - (other & 1) / 2);
      const far = (r, c) => (px - (c + (r & 1) / 2) * wide) ** 2 + (py - r * high) ** 2;
      if (far(other, near) < far(row, column)) [row, column] = [other, near];
    }
    const key = row * 4096 + column;
    let cell = cells.get(key);
    if (!cell) cells.set(key, (cell = { cx: (column + (row & 1) / 2) * wide, cy: row * high, count: 0, sum: 0 }));
    cell.count += 1;
    if (weigh) cell.sum += weigh(t);
  }
  return [...cells.values()];
}

function paintHexagons(pen, cells, alphaOf) {
  const corners = [0, 1, 2, 3, 4, 5].map((i) => [HEXAGON * Math.sin((Math.PI / 3) * i), -HEXAGON * Math.cos((Math.PI / 3) * i)]);
  pen.fillStyle = color("--main");
  for (const cell of cells) {
    pen.globalAlpha = alphaOf(cell);
    pen.beginPath();
    corners.forEach(([dx, dy], i) => pen[i ? "lineTo" : "moveTo"](cell.cx + dx, cell.cy + dy));
    pen.fill();
  }
}

function density(host, { width, height }, trials, x, y) {
  const cells = hexagons(trials, x, y), most = cells.reduce((found, cell) => Math.max(found, cell.count), 1);
  paintHexagons(sheet(host, width, height), cells, (cell) => 0.12 + 0.88 * Math.sqrt(cell.count / most));
}

// Values of all curves at each share of the budget, and which of them are whose.
const sampled = () => once("sampled", () => {
  const at = new Map();
  facts.trials.forEach((t, index) => {
    for (const [share, v] of t.c) {
      if (v === null) continue;
      const place = Math.round(share * 1000) / 1000;
      if (!at.has(place)) at.set(place, []);
      at.get(place).push([index, v]);
    }
  });
  return [...at].filter(([, found]) => found.length >= 5).sort((a, b) => a[0] - b[0]);
});

function bands(svg, shown, x, y) {
  const rows = sampled().map(([share, found]) => [share, Float64Array.from(found.filter(([i]) => shown.has(i)), ([, v]) => v).sort()])
    .filter(([, found]) => found.length >= 5);
  for (const [low, high] of [[0.05, 0.95], [0.25, 0.75]]) {
    const up = rows.map(([s, found]) => `${x.at(s)} ${y.at(quantile(found, low))}`);
    const down = rows.map(([s, found]) => `${x.at(s)} ${y.at(quantile(found, high))}`).reverse();
    if (up.length) add(svg, "path", { class: "band", d: `M${[...up, ...down].join("L")}Z` });
  }
  const middle = rows.map(([s, found]) => `${x.at(s)} ${y.at(quantile(found, 0.5))}`);
  if (middle.length) add(svg, "path", { class: "curve", d: `M${middle.join("L")}` });
}

// Lines between two neighbouring axes by the steps that they join, the more of them the darker; the best tenth over it.
function bundles(pen, columns, trials, top, bottom) {
  const places = once("steps", () => columns.map((column) => Int8Array.from(facts.trials, (t) => {
    const value = column.of(t);
    return value === null ? -1 : Math.min(STEPS - 1, Math.max(0, Math.floor(((column.scale.at(value) - top) / (bottom - top)) * STEPS)));
  })));
  const height = (step) => top + ((step + 0.5) / STEPS) * (bottom - top);
  const best = trials.slice(Math.floor(trials.length * 0.9));
  for (const [some, shade, most] of [[trials, "--faint", 0.6], [best, "--main", 0.8]]) {
    pen.strokeStyle = color(shade);
    for (let c = 0; c + 1 < columns.length; c++) {
      const counts = new Uint32Array(STEPS * STEPS);
      let densest = 1;
      for (const t of some) {
        const from = places[c][t.index], to = places[c + 1][t.index];
        if (from >= 0 && to >= 0) densest = Math.max(densest, ++counts[from * STEPS + to]);
      }
      counts.forEach((count, cell) => {
        if (!count) return;
        pen.globalAlpha = most * (0.04 + 0.96 * (count / densest));
        pen.beginPath();
        pen.moveTo(columns[c].x, height(Math.floor(cell / STEPS)));
        pen.lineTo(columns[c + 1].x, height(cell % STEPS));
        pen.stroke();
      });
    }
  }
}
