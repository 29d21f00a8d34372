// The charts that follow the filter, each drawn anew into its element from the trials that are shown.
const MANY = 200; // trials from which curves become quantile bands
const VERY_MANY = 2000; // trials from which points and lines become densities
facts.trials.forEach((t, index) => { t.index = index; });
const trialCount = (count) => `${count} trial${count === 1 ? "" : "s"}`;
const values = (trials) => trials.map((t) => t.v).filter((v) => v !== null);
const metricName = facts.dimensions.some((d) => d.name === facts.metric) ? "value" : facts.metric; // a loss may be searched, and judged by

function role(trial) {
  if (trial.n === facts.champion) return " champion";
  if (trial.n === facts.baseline) return " baseline";
  return trial.s === "complete" ? "" : ` ${trial.s}`;
}

const titled = (t) => `trial ${t.n} (${t.s}): ${facts.metric} ${round(t.v)}\n`
  + facts.dimensions.map((d, i) => `${d.name} ${round(t.p[i])}`).join("\n");

function scaleOf(index, from, to) {
  return once(`${index} ${from} ${to}`, () => {
    const dimension = facts.dimensions[index], seen = facts.trials.map((t) => t.p[index]).filter((v) => v !== null);
    if (dimension.values || seen.some((v) => typeof v !== "number")) {
      return categories(dimension.values || [...new Set(seen.map(String))], from, to);
    }
    const low = seen.reduce((a, b) => Math.min(a, b), Infinity), high = seen.reduce((a, b) => Math.max(a, b), -Infinity);
    return numeric(...(low < high ? [low, high] : range([low])), dimension.log, from, to);
  });
}

const valueScale = (from, to) => once(`value ${from} ${to}`, () =>
  metricScale(values(facts.trials.filter((t) => t.s === "complete")), from, to));

function curves(trials) {
  const withCurve = trials.filter((t) => t.c.length);
  const { svg, width, height } = canvas($("curves"), 300, `${facts.metric} over the training budget of ${trialCount(withCurve.length)}`);
  const box = { right: width - 28, top: 10, bottom: height - 26 };
  const y = once("curves", () => metricScale(facts.trials.flatMap((t) => t.c.map((p) => p[1])), box.bottom, box.top));
  box.left = besideLabels(y);
  const x = numeric(0, 1, false, box.left, box.right);
  x.ticks = [0.2, 0.4, 0.6, 0.8, 1].map((share) => [x.at(share), `${share * 100} %`]);
  axes(svg, x, y, box);
  const line = (t) => {
    const path = t.c.filter((p) => p[1] !== null).map(([share, v]) => `${x.at(share).toFixed(1)} ${y.at(v).toFixed(1)}`);
    if (!path.length) return;
    const drawn = add(svg, "path", { class: `curve${role(t)}`, d: `M${path.join("L")}` });
    add(drawn, "title", {}, titled(t));
    const [cx, cy] = path[path.length - 1].split(" ");
    if (withCurve.length > MANY && path.length > 1) return;
    if (t.s === "pruned" || path.length === 1) add(svg, "circle", { class: `point${t.s === "pruned" ? "" : role(t)}`, r: 3, cx, cy });
    else if (t.e) add(svg, "rect", { class: `point${role(t)}`, x: cx - 3.5, y: cy - 3.5, width: 7, height: 7 });
  };
  if (withCurve.length > MANY) bands(svg, new Set(withCurve.map((t) => t.index)), x, y);
  else withCurve.filter((t) => t.n !== facts.champion && t.n !== facts.baseline).forEach(line);
  withCurve.filter((t) => t.n === facts.baseline).forEach(line);
  withCurve.filter((t) => t.n === facts.champion).forEach(line);
}

// One small chart for each of `names`, in elements that stay.
function multiples(host, names, drawOne) {
  while (host.children.length < names.length) {
    host.append(document.createElement("div"));
    host.lastChild.className = "chart";
  }
  names.forEach((name, i) => drawOne(host.children[i], name));
}

const beside = (t, scale) => (scale.names ? (((t.n * 0.618) % 1) - 0.5) * 24 : 0); // points of one category side by side

function dots(svg, trials, x, y, style) {
  for (const t of [...trials].sort((a, b) => role(a).length - role(b).length)) {
    const dot = add(svg, "circle", { class: `point${role(t)}`, r: role(t) ? 5 : 3.5, cx: x(t), cy: y(t), ...style(t) });
    add(dot, "title", {}, titled(t));
  }
}

function scatter(trials) {
  const complete = trials.filter((t) => t.s === "complete" && t.v !== null);
  multiples($("scatter"), facts.dimensions.map((_, i) => i), (host, index) => {
    const dimension = facts.dimensions[index];
    const here = complete.filter((t) => t.p[index] !== null);
    const area = canvas(host, 210, `${facts.metric} by ${dimension.name}, ${trialCount(here.length)}`);
    const box = { right: area.width - 10, top: 24, bottom: area.height - 26 }, y = valueScale(box.bottom, box.top);
    box.left = besideLabels(y);
    const x = scaleOf(index, box.left, box.right);
    axes(area.svg, x, y, box);
    add(area.svg, "text", { class: "name", x: box.left, y: 14 }, dimension.name);
    const left = (t) => x.at(t.p[index]) + beside(t, x), up = (t) => y.at(t.v);
    if (here.length > VERY_MANY) density(host, area, here, left, up);
    dots(area.svg, here.length > VERY_MANY ? here.filter((t) => role(t)) : here, left, up, () => ({}));
  });
}

// The darker, the better: of a trial, or the mean of the trials in a hexagon.
function pairs(trials) {
  const complete = trials.filter((t) => t.s === "complete" && t.v !== null), good = valueScale(...(facts.maximize ? [0, 1] : [1, 0]));
  const shade = (v) => 0.08 + 0.92 * Math.min(1, Math.max(0, good.at(v))) ** 1.5;
  multiples($("pairs"), facts.pairs, (host, [a, b]) => {
    const here = complete.filter((t) => t.p[a] !== null && t.p[b] !== null);
    const area = canvas(host, 240, `${facts.dimensions[b].name} against ${facts.dimensions[a].name}, ${trialCount(here.length)}`);
    const box = { right: area.width - 10, top: 24, bottom: area.height - 40 }, y = scaleOf(b, box.bottom, box.top);
    box.left = besideLabels(y);
    const x = scaleOf(a, box.left, box.right);
    axes(area.svg, x, y, box);
    add(area.svg, "text", { class: "name", x: box.left, y: 14 }, facts.dimensions[b].name);
    add(area.svg, "text", { class: "name", x: box.right, y: area.height - 4, "text-anchor": "end" }, facts.dimensions[a].name);
    const left = (t) => x.at(t.p[a]) + beside(t, x), up = (t) => y.at(t.p[b]) + beside(t, y) / 2;
    if (here.length > VERY_MANY) {
      paintHexagons(sheet(host, area.width, area.height), hexagons(here, left, up, (t) => t.v), (cell) => shade(cell.sum / cell.count));
    }
    dots(area.svg, here.length > VERY_MANY ? here.filter((t) => role(t)) : here, left, up,
      (t) => (role(t) ? {} : { class: "point good", "fill-opacity": shade(t.v).toFixed(2) }));
  });
}

function parallel(trials) {
  const { svg, width, height } = canvas($("parallel"), 340, `parallel coordinates of ${trialCount(trials.length)}`);
  svg.setAttribute("role", "group"); // its axes are to be used
  const top = 40, bottom = height - 16, left = 60, right = width - 60;
  const columns = once("columns", () => {
    const all = [...facts.dimensions.map((d, i) => ({ name: d.name, of: (t) => t.p[i], scale: scaleOf(i, bottom, top) })),
      { name: metricName, of: (t) => t.v, scale: metricScale(values(facts.trials), bottom, top) }];
    all.forEach((column, i) => { column.x = left + ((right - left) * i) / Math.max(1, all.length - 1); });
    return all;
  });
  const pen = sheet($("parallel"), width, height);
  const ordered = trials.filter((t) => t.v !== null).sort((a, b) => (facts.maximize ? a.v - b.v : b.v - a.v));
  pen.lineWidth = 1.2;
  if (ordered.length > VERY_MANY) bundles(pen, columns, ordered, top, bottom);
  else ordered.forEach((t, rank) => {
    const quality = ordered.length > 1 ? rank / (ordered.length - 1) : 1;
    pen.strokeStyle = color(quality > 0.8 ? "--main" : "--faint");
    pen.globalAlpha = Math.min(1, 60 / ordered.length) * (0.15 + 0.6 * quality * quality) + 0.02;
    thread(pen, columns, t);
  });
  const champion = ordered.find((t) => t.n === facts.champion);
  if (champion) {
    Object.assign(pen, { strokeStyle: color("--main"), globalAlpha: 1, lineWidth: 3 });
    thread(pen, columns, champion);
  }
  columns.forEach((column, i) => axisToBrush(svg, column, i, { top, bottom, odd: width < 600 && i % 2 }));
}

function thread(pen, columns, trial) {
  pen.beginPath();
  let isDrawing = false;
  for (const column of columns) { // a setting that does not exist at this point leaves a gap
    const value = column.of(trial);
    if (value === null) isDrawing = false;
    else {
      pen[isDrawing ? "lineTo" : "moveTo"](column.x, column.scale.at(value));
      isDrawing = true;
    }
  }
  pen.stroke();
}

function axisToBrush(svg, column, index, { top, bottom, odd }) {
  add(svg, "path", { class: "axis", d: `M${column.x} ${top}V${bottom}` });
  add(svg, "text", { class: "name", x: column.x, y: odd ? 30 : 14, "text-anchor": "middle" }, column.name);
  for (const [place, label] of column.scale.ticks) add(svg, "text", { x: column.x + 6, y: place + 4 }, label);
  const [upper, lower] = keptRange(column, top, bottom);
  const brush = add(svg, "rect", { class: "brush", x: column.x - 8, width: 16, y: upper, height: lower > upper ? lower - upper : 0 });
  const handle = add(svg, "rect", { class: "handle", x: column.x - 14, y: top - 4, width: 28, height: bottom - top + 8,
    tabindex: 0, role: "button", "aria-label": `range of ${column.name}: arrow keys narrow it, Escape lets all through` });
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
  handle.addEventListener("keydown", (event) => {
    const [from, to] = lower > upper ? [upper, lower] : [top, bottom], step = (bottom - top) / 10;
    const moved = { ArrowUp: [from, to - step], ArrowDown: [from + step, to], Escape: [0, 0] }[event.key];
    if (!moved) return;
    event.preventDefault();
    keep(column, ...moved);
    document.querySelectorAll("#parallel .handle")[index].focus();
  });
}
