// What all charts share: the facts, SVG elements, and scales, which give a value its place, a place its value, and ticks.
const facts = JSON.parse(document.getElementById("facts").textContent);
const MANY = 200; // trials from which curves become quantile bands
const VERY_MANY = 2000; // trials from which points become densities
const $ = (id) => document.getElementById(id);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const round = (x) => (x === null ? "-" : typeof x === "number" ? String(Number(x.toPrecision(4))) : String(x));
const values = (trials) => trials.map((t) => t.v).filter((v) => v !== null);

function add(parent, name, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  parent.append(made);
  return made;
}

function canvas(host, height, label) {
  host.replaceChildren();
  const width = Math.max(host.clientWidth, 240);
  const svg = add(host, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  return { svg, width, height };
}

function role(trial) {
  if (trial.n === facts.champion) return " champion";
  if (trial.n === facts.baseline) return " baseline";
  return trial.s === "complete" ? "" : ` ${trial.s}`;
}

const titled = (t) => `trial ${t.n} (${t.s}): ${facts.metric} ${round(t.v)}\n`
  + facts.dimensions.map((d, i) => `${d.name} ${round(t.p[i])}`).join("\n");

function quantile(sorted, q) {
  const at = (sorted.length - 1) * q, low = Math.floor(at), high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

function range(numbers) {
  const sorted = numbers.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const few = sorted.length < 50; // of many, a few that diverged would flatten all the others
  const low = few ? sorted[0] : Math.min(quantile(sorted, 0.02), best(sorted));
  const high = few ? sorted[sorted.length - 1] : Math.max(quantile(sorted, 0.98), best(sorted));
  return high - low <= 1e-9 * Math.abs(high) ? [low - Math.abs(low) * 0.1 - 1e-9, high + Math.abs(high) * 0.1 + 1e-9] : [low, high];
}

const best = (sorted) => (facts.maximize ? sorted[sorted.length - 1] : sorted[0]);

function numeric(low, high, log, from, to) {
  const f = log && low > 0 ? Math.log10 : (x) => x, inverse = log && low > 0 ? (y) => 10 ** y : (y) => y;
  const a = f(low), b = f(high);
  const at = (v) => from + (to - from) * Math.min(1.02, Math.max(-0.02, (f(v) - a) / (b - a || 1)));
  return { at, ends: [from, to], from: (place) => inverse(a + (b - a) * Math.min(1, Math.max(0, (place - from) / (to - from)))),
    ticks: steps(a, b, log && low > 0).map((y) => [from + (to - from) * ((y - a) / (b - a || 1)), round(inverse(y))]) };
}

function steps(a, b, log) {
  if (log) {
    const found = [];
    const between = b - a < 2.5 ? [1, 2, 5] : [1];
    for (let y = Math.floor(a); y <= b; y++) found.push(...between.map((m) => y + Math.log10(m)));
    const inside = found.filter((y) => y >= a - 1e-9 && y <= b + 1e-9);
    if (inside.length >= 2) return inside;
  }
  const rough = (b - a || 1) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  const first = Math.ceil(a / step - 1e-6), last = Math.floor(b / step + 1e-6);
  for (let i = first; i <= last && i - first < 12; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function categories(names, from, to) {
  const place = (i) => from + (to - from) * ((i + 0.5) / names.length);
  return { at: (v) => place(names.findIndex((name) => String(name) === String(v))), names,
    between: (a, b) => names.filter((_, i) => place(i) >= Math.min(a, b) && place(i) <= Math.max(a, b)),
    ticks: names.map((name, i) => [place(i), round(name)]) };
}

function scaleOf(dimension, index, from, to) {
  const seen = facts.trials.map((t) => t.p[index]).filter((v) => v !== null);
  if (dimension.values || seen.some((v) => typeof v !== "number")) {
    return categories(dimension.values || [...new Set(seen.map(String))], from, to);
  }
  const low = seen.reduce((a, b) => Math.min(a, b), Infinity), high = seen.reduce((a, b) => Math.max(a, b), -Infinity);
  return numeric(...(low < high ? [low, high] : range([low])), dimension.log, from, to);
}

function metricScale(numbers, from, to) {
  const [low, high] = range(numbers);
  return numeric(low, high, low > 0 && high / low > 50, from, to);
}

function axes(svg, x, y, { left, right, top, bottom }) {
  add(svg, "path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}`, fill: "none" });
  for (const [place, label] of y.ticks) add(svg, "text", { x: left - 6, y: place + 4, "text-anchor": "end" }, label);
  for (const [place, label] of x.ticks) add(svg, "text", { x: place, y: bottom + 16, "text-anchor": "middle" }, label);
}
