// The charts, each drawn anew into its element from the trials that are shown.
function curves(trials) {
  const withCurve = trials.filter((t) => t.c.length);
  const { svg, width, height } = canvas($("curves"), 300, `${facts.metric} over the training budget`);
  const box = { left: 56, right: width - 28, top: 10, bottom: height - 26 };
  const y = metricScale(facts.trials.flatMap((t) => t.c.map((p) => p[1])), box.bottom, box.top);
  const x = { ...numeric(0, 1, false, box.left, box.right), };
  x.ticks = [0.2, 0.4, 0.6, 0.8, 1].map((share) => [x.at(share), `${share * 100} %`]);
  axes(svg, x, y, box);
  const line = (t) => {
    const path = t.c.filter((p) => p[1] !== null).map(([share, v]) => `${x.at(share).toFixed(1)} ${y.at(v).toFixed(1)}`);
    if (!path.length) return;
    const drawn = add(svg, "path", { class: `curve${role(t)}`, d: `M${path.join("L")}` });
    add(drawn, "title", {}, titled(t));
    if (t.s === "pruned" && withCurve.length <= MANY) {
      const [cx, cy] = path[path.length - 1].split(" ");
      add(svg, "circle", { class: "point", r: 3, cx, cy });
    }
  };
  if (withCurve.length > MANY) bands(svg, withCurve, x, y);
  else withCurve.filter((t) => t.n !== facts.champion && t.n !== facts.baseline).forEach(line);
  withCurve.filter((t) => t.n === facts.baseline).forEach(line);
  withCurve.filter((t) => t.n === facts.champion).forEach(line);
}

function bands(svg, trials, x, y) {
  const at = new Map();
  for (const t of trials) for (const [share, v] of t.c) {
    if (v === null) continue;
    const place = Math.round(share * 1000) / 1000;
    if (!at.has(place)) at.set(place, []);
    at.get(place).push(v);
  }
  const rows = [...at].filter(([, found]) => found.length >= 5).map(([share, found]) => [share, found.sort((a, b) => a - b)])
    .sort((a, b) => a[0] - b[0]);
  for (const [low, high] of [[0.05, 0.95], [0.25, 0.75]]) {
    const up = rows.map(([s, found]) => `${x.at(s)} ${y.at(quantile(found, high))}`);
    const down = rows.map(([s, found]) => `${x.at(s)} ${y.at(quantile(found, low))}`).reverse();
    if (up.length) add(svg, "path", { class: "band", d: `M${[...up, ...down].join("L")}Z` });
  }
  const middle = rows.map(([s, found]) => `${x.at(s)} ${y.at(quantile(found, 0.5))}`);
  if (middle.length) add(svg, "path", { class: "curve", d: `M${middle.join("L")}` });
}

function scatter(trials) {
  const host = $("scatter");
  const complete = trials.filter((t) => t.s === "complete" && t.v !== null);
  while (host.children.length < facts.dimensions.length) host.append(document.createElement("div"));
  facts.dimensions.forEach((dimension, index) => {
    const { svg, width, height } = canvas(host.children[index], 210, `${facts.metric} by ${dimension.name}`);
    const box = { left: 50, right: width - 10, top: 24, bottom: height - 26 };
    const x = scaleOf(dimension, index, box.left, box.right);
    const y = metricScale(values(facts.trials.filter((t) => t.s === "complete")), box.bottom, box.top);
    axes(svg, x, y, box);
    add(svg, "text", { class: "name", x: box.left, y: 14 }, dimension.name);
    const here = complete.filter((t) => t.p[index] !== null);
    if (here.length > VERY_MANY) density(svg, here, (t) => x.at(t.p[index]), (t) => y.at(t.v));
    const dots = here.length > VERY_MANY ? here.filter((t) => role(t)) : here;
    dots.sort((a, b) => role(a).length - role(b).length);
    for (const t of dots) {
      const spread = x.names ? ((t.n * 0.618) % 1 - 0.5) * 24 : 0; // points of one category side by side
      const dot = add(svg, "circle", { class: `point${role(t)}`, r: role(t) ? 5 : 3.5, cx: x.at(t.p[index]) + spread, cy: y.at(t.v) });
      add(dot, "title", {}, titled(t));
    }
  });
}

function density(svg, trials, x, y, size = 8) {
  const counts = new Map();
  for (const t of trials) {
    const key = `${Math.floor(x(t) / size)},${Math.floor(y(t) / size)}`;
    counts.set(key, (counts.get(key) || 0) + 1);
  }
  const most = [...counts.values()].reduce((a, b) => Math.max(a, b), 1);
  for (const [key, count] of counts) {
    const [column, row] = key.split(",").map(Number);
    const cell = add(svg, "rect", { class: "cell", x: column * size, y: row * size, width: size, height: size,
      opacity: (0.15 + 0.85 * Math.sqrt(count / most)).toFixed(2) });
    add(cell, "title", {}, `${count} trials`);
  }
}

function parallel(trials) {
  const { svg, width, height } = canvas($("parallel"), 340, "parallel coordinates of all trials");
  const top = 40, bottom = height - 16, left = 60, right = width - 60;
  const columns = [...facts.dimensions.map((d, i) => ({ name: d.name, of: (t) => t.p[i], scale: scaleOf(d, i, bottom, top) })),
    { name: facts.metric, of: (t) => t.v, scale: metricScale(values(facts.trials), bottom, top) }];
  columns.forEach((column, i) => { column.x = left + ((right - left) * i) / Math.max(1, columns.length - 1); });
  const sheet = document.createElement("canvas"), ratio = window.devicePixelRatio || 1;
  sheet.width = width * ratio;
  sheet.height = height * ratio;
  $("parallel").prepend(sheet);
  const pen = sheet.getContext("2d");
  pen.scale(ratio, ratio);
  const ordered = trials.filter((t) => t.v !== null).sort((a, b) => (facts.maximize ? a.v - b.v : b.v - a.v));
  ordered.forEach((t, rank) => {
    const quality = ordered.length > 1 ? rank / (ordered.length - 1) : 1;
    const chosen = t.n === facts.champion;
    pen.strokeStyle = chosen || quality > 0.8 ? color("--main") : color("--faint");
    pen.globalAlpha = chosen ? 1 : Math.min(1, 60 / ordered.length) * (0.15 + 0.6 * quality * quality) + 0.02;
    pen.lineWidth = chosen ? 3 : 1.2;
    pen.beginPath();
    let isDrawing = false;
    for (const column of columns) { // a setting that does not exist at this point leaves a gap
      const value = column.of(t);
      if (value === null) isDrawing = false;
      else {
        pen[isDrawing ? "lineTo" : "moveTo"](column.x, column.scale.at(value));
        isDrawing = true;
      }
    }
    pen.stroke();
  });
  columns.forEach((column, i) => axisToBrush(svg, column, i, { top, bottom, odd: width < 600 && i % 2 }));
}

function axisToBrush(svg, column, index, { top, bottom, odd }) {
  add(svg, "path", { class: "axis", d: `M${column.x} ${top}V${bottom}` });
  add(svg, "text", { class: "name", x: column.x, y: odd ? 30 : 14, "text-anchor": "middle" }, column.name);
  for (const [place, label] of column.scale.ticks) add(svg, "text", { x: column.x + 6, y: place + 4 }, label);
  const brush = add(svg, "rect", { class: "brush", x: column.x - 8, width: 16, y: 0, height: 0 });
  const handle = add(svg, "rect", { class: "handle", x: column.x - 14, y: top - 4, width: 28, height: bottom - top + 8 });
  const placeOf = (event) => event.clientY - svg.getBoundingClientRect().top;
  handle.style.touchAction = "none";
  handle.addEventListener("pointerdown", (event) => {
    const began = placeOf(event);
    handle.setPointerCapture(event.pointerId);
    handle.onpointermove = (moved) => {
      brush.setAttribute("y", Math.min(began, placeOf(moved)));
      brush.setAttribute("height", Math.abs(began - placeOf(moved)));
    };
    handle.onpointerup = (ended) => {
      handle.onpointermove = handle.onpointerup = null;
      keep(column, began, placeOf(ended));
    };
  });
}

function intervals() {
  const found = facts.finalists;
  const { svg, width, height } = canvas($("intervals"), 30 * found.length + 36, "finalists' means and intervals");
  const box = { left: 130, right: width - 14, top: 4, bottom: height - 24 };
  const x = numeric(...range(found.flatMap((f) => [f.low, f.high])), false, box.left, box.right);
  axes(svg, x, { ticks: [] }, box);
  found.forEach((f, i) => {
    const y = 20 + 30 * i;
    add(svg, "text", { class: "name", x: box.left - 8, y: y + 4, "text-anchor": "end" }, `${f.trial}${f.baseline ? " (baseline)" : ""}`);
    add(svg, "path", { class: "whisker", d: `M${x.at(f.low)} ${y}H${x.at(f.high)}` });
    const dot = add(svg, "circle", { class: `point${f.trial === facts.champion ? " champion" : f.baseline ? " baseline" : ""}`, r: 5.5, cx: x.at(f.mean), cy: y });
    add(dot, "title", {}, `${round(f.mean)} (${round(f.low)} to ${round(f.high)})`);
  });
}

function importances() {
  const found = facts.importances;
  const { svg, width, height } = canvas($("importances"), 26 * found.length + 30, "importance of each setting");
  const box = { left: 150, right: width - 14, top: 2, bottom: height - 24 };
  const x = numeric(0, 1, false, box.left, box.right);
  axes(svg, x, { ticks: [] }, box);
  found.forEach((f, i) => {
    const y = 8 + 26 * i;
    add(svg, "text", { class: "name", x: box.left - 8, y: y + 12, "text-anchor": "end" }, f.name);
    add(svg, "rect", { class: "bar", x: box.left, y, width: x.at(f.share) - box.left, height: 16 });
    add(svg, "path", { class: "whisker", d: `M${x.at(f.low)} ${y + 8}H${x.at(f.high)}` });
  });
}

function plane() {
  const found = facts.variants.filter((v) => v.value !== null);
  const { svg, width, height } = canvas($("plane"), 260, "quality against latency of each variant");
  const box = { left: 60, right: width - 60, top: 12, bottom: height - 40 };
  const [low, high] = range(found.map((v) => v.value));
  const up = facts.maximize ? [box.bottom - 20, box.top + 14] : [box.top + 14, box.bottom - 20];
  const y = numeric(low, high, false, ...up), x = numeric(0, Math.max(...found.map((v) => v.ms)) * 1.05, false, box.left, box.right);
  axes(svg, x, y, box);
  add(svg, "text", { x: box.right, y: height - 6, "text-anchor": "end" }, "p50 in ms, one text");
  for (const v of found) {
    const kind = v.passed === null ? " baseline" : v.passed ? " champion" : " failed";
    const dot = add(svg, "circle", { class: `point${kind}`, r: 6, cx: x.at(v.ms), cy: y.at(v.value) });
    add(dot, "title", {}, `${v.name}: ${round(v.value)}, ${round(v.ms)} ms`);
    add(svg, "text", { class: "name", x: x.at(v.ms) + 9, y: y.at(v.value) + 4 }, v.name);
  }
}
