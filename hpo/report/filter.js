// The filter: what its text says holds for the table and the charts of trials, and dragging along an axis writes into it.
const CONDITION = /^\s*([^<>=!]+?)\s*(<=|>=|=|<|>)\s*(.+?)\s*$/;
const conditions = () => $("query").value.split(";").filter((part) => part.trim());

function valueOf(name) {
  if (name === "trial") return (t) => t.n;
  if (name === "state") return (t) => t.s;
  if (name === metricName || name === "value") return (t) => t.v;
  const index = facts.dimensions.findIndex((d) => d.name === name);
  return index < 0 ? null : (t) => t.p[index];
}

function test(part) {
  const [, name, sign, wanted] = CONDITION.exec(part) || [];
  const of = name && valueOf(name);
  if (!of || (sign !== "=" && !Number.isFinite(Number(wanted)))) return null;
  if (sign === "=") {
    const allowed = wanted.split("|").map((v) => v.trim());
    return (t) => allowed.some((v) => String(of(t)) === v || (of(t) !== null && v !== "" && Number(v) === of(t)));
  }
  const bound = Number(wanted);
  const compare = { "<": (v) => v < bound, ">": (v) => v > bound, "<=": (v) => v <= bound, ">=": (v) => v >= bound }[sign];
  return (t) => of(t) !== null && compare(of(t));
}

// What the filter keeps of an axis, as two places from above; equal ones where it keeps all of it.
function keptRange(column, top, bottom) {
  const found = conditions().map((part) => CONDITION.exec(part) || []).filter(([, name]) => name === column.name);
  if (column.scale.names) {
    const places = found.flatMap(([, , , value]) => value.split("|").map((name) => column.scale.at(name.trim()))).filter(Number.isFinite);
    return places.length ? [Math.min(...places) - 2, Math.max(...places) + 2] : [0, 0];
  }
  const bound = (sign) => found.filter(([, , given]) => given[0] === sign).map(([, , , value]) => column.scale.at(Number(value)));
  const lowest = bound(">"), highest = bound("<");
  return lowest.length || highest.length ? [Math.max(top, ...highest), Math.min(bottom, ...lowest)] : [0, 0];
}

function keep(column, began, ended) {
  const others = conditions().filter((part) => (CONDITION.exec(part) || [])[1] !== column.name).map((part) => part.trim());
  if (Math.abs(began - ended) > 4) others.push(...between(column, Math.min(began, ended), Math.max(began, ended)));
  $("query").value = others.join("; ");
  draw();
}

// An end at the end of the axis bounds nothing: values that the axis cuts off stay.
function between(column, upper, lower) {
  const { scale, name } = column;
  if (scale.names) {
    const inside = scale.between(upper, lower);
    return inside.length ? [`${name} = ${inside.join("|")}`] : [];
  }
  const bound = (place) => Number(scale.from(place).toPrecision(6));
  const [bottom, top] = scale.ends;
  return [...(lower < bottom ? [`${name} >= ${bound(lower)}`] : []), ...(upper > top ? [`${name} <= ${bound(upper)}`] : [])];
}

function draw() {
  const tests = conditions().map(test);
  const isClear = tests.every((t) => t !== null);
  $("query").setAttribute("aria-invalid", String(!isClear));
  const shown = isClear ? facts.trials.filter((trial) => tests.every((holds) => holds(trial))) : facts.trials;
  $("shown").textContent = isClear ? `${shown.length} of ${trialCount(facts.trials.length)}` : "not understood: all are shown";
  const numbers = new Set(shown.map((t) => String(t.n)));
  for (const [row, number] of rowsOfTable()) if (row.hidden === numbers.has(number)) row.hidden = !row.hidden;
  curves(shown);
  scatter(shown);
  pairs(shown);
  parallel(shown);
}

const rowsOfTable = () => once("rows", () => [...document.querySelectorAll("#leaderboard tbody tr")].map((row) => [row, row.dataset.trial]));

function sortable(table) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = cell.textContent;
    cell.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].textContent;
      const compare = (a, b) => parseFloat(key(a)) - parseFloat(key(b)) || key(a).localeCompare(key(b));
      body.append(...[...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b))));
    });
  });
  for (const row of body.rows) row.classList.toggle("champion", row.dataset.trial === String(facts.champion));
}

function all() {
  draw();
  if (facts.importances.length) importances();
  if ($("intervals") && facts.finalists.length) intervals();
  if ($("plane") && facts.variants.length) plane();
  if ($("timeline")) timeline();
}

sortable($("leaderboard"));
$("filter").addEventListener("submit", (event) => event.preventDefault());
$("query").addEventListener("input", draw);
redrawn(all);
