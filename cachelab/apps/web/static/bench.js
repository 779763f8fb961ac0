// The charts of the bench: the last minute, asked for once a second. The table holds the same.
"use strict";

const WIDE = 480, TALL = 230, LEFT = 54, RIGHT = 60, TOP = 12, BOTTOM = 30;
const across = (at, count) => LEFT + (WIDE - LEFT - RIGHT) * at / Math.max(1, count - 1);

function part(kind, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const name in attributes) made.setAttribute(name, attributes[name]);
  if (text !== undefined) made.textContent = text;
  return made;
}

// One line for each of lines, {key, name, look}; a second without a value leaves a gap.
function draw(id, rows, lines, ticks, height) {
  const parts = [];
  for (const tick of ticks) {
    const y = height(tick);
    parts.push(part("line", {class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: y, y2: y}));
    parts.push(part("text", {x: LEFT - 8, y: y + 4, "text-anchor": "end"}, tick));
  }
  for (const ago of [60, 40, 20, 0]) {
    const x = LEFT + (WIDE - LEFT - RIGHT) * (60 - ago) / 60;
    parts.push(part("text", {x, y: TALL - 8, "text-anchor": "middle"}, ago ? `−${ago} s` : "now"));
  }
  const ends = [];
  for (const {key, name, look} of lines) {
    let path = "", last = null;
    rows.forEach((row, at) => {
      const value = row[key];
      if (value === null) { last = null; return; }
      const x = across(at, rows.length), y = height(value);
      path += `${last === null ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
      last = y;
    });
    parts.push(part("path", {class: look, d: path}));
    if (last !== null) ends.push({name, y: last});
  }
  ends.sort((one, other) => one.y - other.y);
  ends.forEach((end, at) => {
    if (at && end.y - ends[at - 1].y < 16) end.y = ends[at - 1].y + 16;
    parts.push(part("text", {class: "name", x: WIDE - RIGHT + 8, y: end.y + 4}, end.name));
  });
  document.getElementById(id).replaceChildren(...parts);
}

const inside = share => TALL - BOTTOM - share * (TALL - BOTTOM - TOP);

function latency(rows) {
  const most = Math.max(100, ...rows.map(row => row.p95 ?? 0));
  const decades = Math.ceil(Math.log10(most));
  const ticks = Array.from({length: decades + 1}, (_, power) => 10 ** power);
  const height = ms => inside(Math.log10(Math.max(1, ms)) / decades);
  draw("latency", rows, [{key: "p50", name: "p50", look: "plain"},
    {key: "p95", name: "p95", look: "p95"}], ticks, height);
}

function loads(rows) {
  const most = Math.max(10, ...rows.map(row => Math.max(row.requests, row.loads)));
  const step = [5, 10, 20, 50, 100, 200, 500, 1000].find(one => most / one <= 5) ?? 5000;
  const top = Math.ceil(most / step) * step;
  const ticks = Array.from({length: top / step + 1}, (_, at) => at * step);
  draw("loads", rows, [{key: "requests", name: "pages", look: "plain"},
    {key: "loads", name: "loads", look: "loads"}, {key: "errors", name: "errors", look: "errors"}]
    .filter(({key}) => key !== "errors" || rows.some(row => row.errors)), ticks, count => inside(count / top));
}

function table(rows) {
  const cells = document.querySelectorAll("#seconds tbody tr");
  rows.slice(-10).reverse().forEach((row, at) => {
    ["requests", "hits", "loads", "errors", "p50", "p95"].forEach((key, column) => {
      cells[at].children[column + 1].textContent = row[key] ?? "–";
    });
  });
}

async function turn() {
  try {
    const answer = await fetch("/bench/seconds", {cache: "no-store"});
    if (answer.ok) {
      const rows = await answer.json();
      latency(rows); loads(rows); table(rows);
    }
  } catch (error) { /* the demo has ended, or is not there yet: the next turn tells */ }
  setTimeout(turn, 1000);
}

turn();
