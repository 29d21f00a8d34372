// The charts that do not follow the filter: finalists, importances, ONNX variants, and the workers' time.
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
  const { svg, width, height } = canvas($("plane"), 260, `${facts.gate.metric} against latency of each variant`);
  const box = { right: width - 60, top: 12, bottom: height - 40 };
  const [low, high] = range(found.map((v) => v.value));
  const up = facts.gate.maximize ? [box.bottom - 20, box.top + 14] : [box.top + 14, box.bottom - 20];
  const y = numeric(low, high, false, ...up);
  box.left = besideLabels(y);
  const x = numeric(0, Math.max(...found.map((v) => v.ms)) * 1.05, false, box.left, box.right);
  axes(svg, x, y, box);
  add(svg, "text", { x: box.right, y: height - 6, "text-anchor": "end" }, "p50 in ms, one text");
  const named = [];
  for (const v of found) {
    const kind = v.passed === null ? " baseline" : v.passed ? " champion" : " failed";
    const dot = add(svg, "circle", { class: `point${kind}`, r: 6, cx: x.at(v.ms), cy: y.at(v.value) });
    add(dot, "title", {}, `${v.name}: ${round(v.value)}, ${round(v.ms)} ms`);
    const place = { x: x.at(v.ms) + 9, y: y.at(v.value) + 4 };
    while (named.some((other) => Math.abs(other.y - place.y) < 13 && Math.abs(other.x - place.x) < 60)) place.y += 13;
    named.push(place);
    add(svg, "text", { class: "name", ...place }, v.name);
  }
}

// A row for each worker; searches and races one after another, each as wide as it was long: no worker's time lies between.
function timeline() {
  const { phases, stints } = facts.timeline, rows = Math.max(...phases.map((p) => p.workers));
  const { svg, width, height } = canvas($("timeline"), 26 * rows + 44, "when each worker trained what");
  const left = 64, whole = phases.reduce((sum, p) => sum + p.ended - p.began, 0) || 1;
  const gap = Math.min(14, (width - left - 10) / (2 * phases.length)); // of many short sessions, half of the width stays for them
  const scale = (width - left - 10 - gap * (phases.length - 1)) / whole;
  let next = left;
  const places = phases.map((p) => {
    const from = next;
    next += (p.ended - p.began) * scale + gap;
    return { from, at: (time) => from + (time - p.began) * scale };
  });
  for (let row = 0; row < rows; row++) add(svg, "text", { class: "name", x: 0, y: 26 * row + 38 }, `worker ${row}`);
  let free = -Infinity;
  phases.forEach((p, i) => {
    const end = places[i].at(p.ended);
    for (let row = 0; row < p.workers; row++) add(svg, "rect", { class: "idle", x: places[i].from, y: 26 * row + 23, width: Math.max(1, end - places[i].from), height: 20 });
    const label = `${p.what}, ${lasted(p.ended - p.began)}`;
    if (places[i].from < free) return;
    add(svg, "text", { x: places[i].from, y: 12 }, label);
    free = places[i].from + label.length * 6.5;
  });
  const few = stints.length <= 2000, pen = few ? null : sheet($("timeline"), width, height);
  for (const [trial, repeat, slot, phase, began, ended, how] of stints) {
    const place = { x: places[phase].at(began), y: 26 * slot + 25, width: Math.max(0.5, (ended - began) * scale - 0.5), height: 16 };
    if (!few) {
      pen.fillStyle = color(how === "complete" ? "--main" : how === "pruned" ? "--faint" : "--bad");
      pen.fillRect(place.x, place.y, place.width, place.height);
      continue;
    }
    const kind = trial === facts.champion ? "champion" : how === "complete" ? "complete" : how === "pruned" ? "pruned" : "failed";
    const drawn = add(svg, "rect", { class: `stint ${kind}`, ...place });
    add(drawn, "title", {}, `trial ${trial}${repeat === null ? "" : `, repeat ${repeat}`}: ${how}, ${lasted(ended - began)}`);
  }
}

const lasted = (s) => (s < 120 ? `${s < 10 ? s.toFixed(1) : Math.round(s)} s` : s < 7200 ? `${(s / 60).toFixed(1)} min` : `${(s / 3600).toFixed(1)} h`);
