// What all charts share: the facts, SVG elements, and scales, which give a value its place, a place its value, and ticks.
const facts = JSON.parse(document.getElementById("facts").textContent);
const $ = (id) => document.getElementById(id);
const round = (x) => (x === null ? "-" : typeof x === "number" ? String(Number(x.toPrecision(4))) : String(x));

// What stays while only the filter changes, made once: measuring an element makes the browser lay out the whole page.
let kept = new Map();
function once(key, make) {
  if (!kept.has(key)) kept.set(key, make());
  return kept.get(key);
}
const forget = () => { kept = new Map(); };
const color = (name) => once(name, () => getComputedStyle(document.documentElement).getPropertyValue(name).trim());

function add(parent, name, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  parent.append(made);
  return made;
}

function canvas(host, height, label) {
  const width = once(host, () => Math.max(host.clientWidth, 240));
  host.replaceChildren();
  const svg = add(host, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  return { svg, width, height };
}

// A bitmap below the SVG, for what would be too many elements.
function sheet(host, width, height) {
  const made = document.createElement("canvas"), ratio = window.devicePixelRatio || 1;
  made.width = width * ratio;
  made.height = height * ratio;
  host.prepend(made);
  const pen = made.getContext("2d");
  pen.scale(ratio, ratio);
  return pen;
}

function quantile(sorted, q) {
  const at = (sorted.length - 1) * q, low = Math.floor(at), high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

function range(numbers) {
  const sorted = Float64Array.from(numbers.filter(Number.isFinite)).sort();
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
  const share = (v) => (f(v) - a) / (b - a || 1);
  const at = (v) => from + (to - from) * Math.min(1.02, Math.max(-0.02, share(v)));
  return { at, share, ends: [from, to], from: (place) => inverse(a + (b - a) * Math.min(1, Math.max(0, (place - from) / (to - from)))),
    ticks: steps(a, b, log && low > 0).map((y) => [from + (to - from) * ((y - a) / (b - a || 1)), log && low > 0 ? round(inverse(y)) : String(y)]) };
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
  const places = new Map(names.map((name, i) => [String(name), from + (to - from) * ((i + 0.5) / names.length)]));
  const at = (v) => places.get(String(v));
  return { at, names, between: (a, b) => names.filter((name) => at(name) >= Math.min(a, b) && at(name) <= Math.max(a, b)),
    ticks: names.map((name) => [at(name), shortened(round(name), 14)]) };
}

const shortened = (name, most) => (name.length > most ? `${name.slice(0, Math.max(3, most - 1))}…` : name);

function metricScale(numbers, from, to) {
  const [low, high] = range(numbers);
  return numeric(low, high, low > 0 && high / low > 50, from, to);
}

// Where a chart begins, so that the labels of its vertical axis are within the drawing.
const besideLabels = (y) => Math.max(54, 12 + 7 * Math.max(0, ...y.ticks.map(([, label]) => label.length)));

// Labels that would lie over the one before are left out.
function axes(svg, x, y, { left, right, top, bottom }) {
  add(svg, "path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}`, fill: "none" });
  for (const [place, label] of y.ticks) add(svg, "text", { x: left - 6, y: place + 4, "text-anchor": "end" }, label);
  let free = -Infinity;
  for (const [place, label] of x.ticks) {
    const half = label.length * 3.6;
    if (place - half < free) continue;
    add(svg, "text", { x: place, y: bottom + 16, "text-anchor": "middle" }, label);
    free = place + half + 4;
  }
}

// Charts follow the width of the page, the colours of its scheme, and paper.
function redrawn(all) {
  let width = 0;
  const anew = () => {
    forget();
    all();
  };
  new ResizeObserver(() => {
    if (document.body.clientWidth !== width) {
      width = document.body.clientWidth;
      anew();
    }
  }).observe(document.body);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", anew);
}
