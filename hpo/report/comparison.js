// The charts of a comparison: each sweep has a colour and a dash of its own, and its name beside its line.
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const lineOf = (i) => ({ class: `curve sweep s${i % 6}`, "stroke-dasharray": DASHES[Math.floor(i / 6) % DASHES.length] });

function champions() {
  const found = facts.sweeps.filter((s) => s.value !== null);
  const { svg, width, height } = canvas($("champions"), 30 * found.length + 36, "champion of each sweep, with its interval");
  const longest = Math.max(...found.map((s) => s.name.length), 6);
  const box = { left: Math.min(width * 0.45, 16 + 7 * longest), right: width - 24, top: 4, bottom: height - 24 };
  const x = numeric(...range(found.flatMap((s) => (s.interval ? s.interval : [s.value]))), false, box.left + 10, box.right);
  axes(svg, x, { ticks: [] }, box);
  facts.sweeps.forEach((s, i) => {
    const row = found.indexOf(s);
    if (row < 0) return;
    const y = 20 + 30 * row, [mean, low, high] = s.interval || [s.value, s.value, s.value];
    add(svg, "text", { class: "name", x: box.left - 8, y: y + 4, "text-anchor": "end" }, shortened(s.name, (box.left - 12) / 7));
    add(svg, "path", { class: "whisker", d: `M${x.at(low)} ${y}H${x.at(high)}` });
    const dot = add(svg, "circle", { class: `sweep dot s${i % 6}`, r: 5.5, cx: x.at(mean), cy: y });
    add(dot, "title", {}, s.interval ? `${s.name}: ${round(mean)} (${round(low)} to ${round(high)})` : `${s.name}: ${round(mean)}`);
  });
}

// Lines over `x`, one for each sweep; `pointsOf` gives [place, value] of a sweep.
function lines(host, label, pointsOf, isStepped, ticksOf) {
  const { svg, width, height } = canvas(host, 280, label);
  const box = { right: width - 110, top: 10, bottom: height - 26 };
  const points = facts.sweeps.map((s) => pointsOf(s).filter(([, v]) => v !== null));
  const y = metricScale(points.flat().map(([, v]) => v), box.bottom, box.top);
  box.left = besideLabels(y);
  const x = ticksOf(box.left, box.right, Math.max(1, ...points.flat().map(([at]) => at)));
  axes(svg, x, y, box);
  const names = [];
  points.forEach((found, i) => {
    if (!found.length) return;
    const path = found.map(([at, v], k) => (k && isStepped ? `H${x.at(at)}V${y.at(v)}` : `${k ? "L" : "M"}${x.at(at)} ${y.at(v)}`));
    const drawn = add(svg, "path", { ...lineOf(i), d: path.join("") });
    add(drawn, "title", {}, facts.sweeps[i].name);
    const [at, v] = found[found.length - 1];
    if (found.length === 1) add(svg, "circle", { class: `sweep dot s${i % 6}`, r: 3.5, cx: x.at(at), cy: y.at(v) });
    names.push({ i, x: x.at(at), y: y.at(v) });
  });
  let above = -Infinity;
  for (const name of names.sort((a, b) => a.y - b.y)) { // names that would lie over each other move down
    above = Math.max(name.y + 4, above + 14);
    add(svg, "text", { class: `sweep-name s${name.i % 6}`, x: name.x + 6, y: above }, shortened(facts.sweeps[name.i].name, 14));
  }
}

function all() {
  if (facts.sweeps.some((s) => s.value !== null)) champions();
  const longest = Math.max(1, ...facts.sweeps.map((s) => s.trials));
  lines($("best"), `best ${facts.metric} so far, by trials`, (s) => (s.best.length ? [...s.best, [s.trials, s.best[s.best.length - 1][1]]] : []),
    true, (from, to) => numeric(0, longest, false, from, to));
  lines($("curves"), `learning curves of the champions`, (s) => s.curve, false, (from, to) => {
    const x = numeric(0, 1, false, from, to);
    x.ticks = [0.2, 0.4, 0.6, 0.8, 1].map((share) => [x.at(share), `${share * 100} %`]);
    return x;
  });
}

redrawn(all);
