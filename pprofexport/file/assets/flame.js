// SPDX-License-Identifier: Apache-2.0
//
// Draws the flame graph whose data stands in the element #data: flameData in
// flamegraph.go. Every name goes into the page as text or as an attribute set
// by the DOM, never as markup.
"use strict";

const ROW = 20; // px from one row to the next, see .f in flame.css
const MAX_BOXES = 10000; // elements; beyond it the narrowest are left out
const KINDS = ["user", "inlined", "kernel", "jit", "unnamed", "process", "marker"]; // kind in stacks.go
const KIND_TEXT = ["user code", "inlined", "kernel", "JIT", "no name", "process or thread", "incomplete stack"];

const $ = (id) => document.getElementById(id);
const tree = readTree(JSON.parse($("data").textContent));
const view = { zoom: 0, selected: 0, query: "", flipped: false, boxes: new Map(), hits: null };

/* ---- data ---- */

// readTree unpacks the data into one array for each property of a node.
// Node i spans start[i] … start[i] + value[i] of its row; its descendants are
// the nodes after it and before end[i].
function readTree(data) {
  const n = data.nodes.length / 4;
  const t = {
    data, n,
    frame: new Int32Array(n), depth: new Int32Array(n), parent: new Int32Array(n), end: new Int32Array(n),
    value: new Float64Array(n), count: new Float64Array(n), start: new Float64Array(n), self: new Float64Array(n),
  };
  const path = []; // the node last seen at each depth
  for (let i = 0; i < n; i++) {
    const [frame, depth, value, count] = data.nodes.slice(4 * i, 4 * i + 4);
    t.frame[i] = frame; t.depth[i] = depth; t.value[i] = value; t.count[i] = count;
    for (const j of path.splice(depth)) t.end[j] = i;
    path.push(i);
    const parent = depth > 0 ? path[depth - 1] : -1;
    t.parent[i] = parent;
    t.self[i] = value;
    if (parent >= 0) {
      t.start[i] = t.start[parent] + (t.value[parent] - t.self[parent]); // after its elder siblings
      t.self[parent] -= value;
    }
  }
  for (const j of path) t.end[j] = n;
  return t;
}

function frameOf(i) {
  const f = tree.frame[i];
  if (f < 0) return { name: "all", file: "", binary: "", kind: "root", text: "", line: "" };
  const [name, file, binary, kind, min, max, begin] = tree.data.frames.slice(7 * f, 7 * f + 7);
  const s = tree.data.strings;
  let line = min ? (min === max ? ":" + min : ":" + min + "–" + max) : "";
  if (!line && begin) line = ":" + begin;
  return { name: s[name], file: s[file], binary: s[binary], kind: KINDS[kind], text: KIND_TEXT[kind], line };
}

const nameOf = (i) => frameOf(i).name;

/* ---- numbers ---- */

function percent(part, whole) {
  if (!whole) return "–";
  const p = 100 * part / whole;
  return (p >= 99.995 && part < whole ? "99.99" : p.toFixed(2)) + " %";
}

function amount(v) {
  switch (tree.data.unit) {
    case "nanoseconds": return time(v);
    case "bytes": return (v / 1048576).toFixed(2) + " MiB";
    case "count": case "": return v.toLocaleString("en");
    default: return v.toLocaleString("en") + " " + tree.data.unit;
  }
}

function time(ns) {
  if (ns === 0) return "0 s";
  if (ns < 1e9) return (ns / 1e6).toFixed(1) + " ms";
  if (ns < 60e9) return (ns / 1e9).toFixed(2) + " s";
  if (ns < 3600e9) return (ns / 60e9).toFixed(2) + " min";
  return (ns / 3600e9).toFixed(2) + " h";
}

function samples(i) {
  const c = tree.count[i];
  return c ? c.toLocaleString("en") + (c === 1 ? " sample" : " samples") : "";
}

// numbers describes the weight of node i.
function numbers(i) {
  const parts = [percent(tree.value[i], tree.value[0]) + " of all"];
  if (view.zoom > 0) parts.push(percent(tree.value[i], tree.value[view.zoom]) + " of the zoom");
  parts.push(samples(i), amount(tree.value[i]), "itself " + percent(tree.self[i], tree.value[0]));
  return parts.filter(Boolean).join(" · ");
}

function place(f) {
  return [f.file && f.file + f.line, f.binary, f.text].filter(Boolean).join(" · ");
}

/* ---- drawing ---- */

// variation is a number from 0 to 7 that is the same for the same name.
function variation(name) {
  let h = 2166136261;
  for (let i = 0; i < name.length && i < 200; i++) h = Math.imul(h ^ name.charCodeAt(i), 16777619);
  return (h >>> 13) & 7;
}

// visible lists the nodes above node zoom, and those from it down that are at
// least 1 px wide when it is `width` px.
function visible(zoom, width) {
  const out = [];
  for (let i = zoom; i >= 0; i = tree.parent[i]) if (i !== zoom) out.push(i);
  out.reverse();
  const scale = width / (tree.value[zoom] || 1);
  for (let i = zoom; i < tree.end[zoom];) {
    if (tree.value[i] * scale < 1) {
      i = tree.end[i]; // nothing below it is wider
    } else {
      out.push(i++);
    }
  }
  return out;
}

function draw() {
  const graph = $("graph");
  const width = graph.clientWidth;
  let nodes = visible(view.zoom, width);
  if (nodes.length > MAX_BOXES) { // the widest; of equals the first, so no child without its parent
    nodes.sort((a, b) => tree.value[b] - tree.value[a] || a - b).length = MAX_BOXES;
    nodes.sort((a, b) => a - b);
  }

  let rows = 1;
  for (const i of nodes) rows = Math.max(rows, tree.depth[i] + 1);
  const boxes = document.createDocumentFragment();
  view.boxes.clear();
  for (const i of nodes) {
    const box = drawBox(i, width, rows);
    view.boxes.set(i, box);
    boxes.append(box);
  }
  if (tree.value[0] === 0) {
    const p = document.createElement("p");
    p.textContent = "This profile holds no samples.";
    boxes.append(p);
  }
  graph.replaceChildren(boxes);
  graph.style.height = rows * ROW + "px";
  $("reset").disabled = view.zoom === 0;
  select(view.boxes.has(view.selected) ? view.selected : view.zoom, false);
  markHits();
}

function drawBox(i, width, rows) {
  const f = frameOf(i);
  const scale = width / (tree.value[view.zoom] || 1);
  const above = i < view.zoom || tree.value[0] === 0;
  const px = above ? width : tree.value[i] * scale;
  const box = document.createElement("div");
  box.className = "f " + f.kind + " v" + variation(f.name) +
    (above && i !== view.zoom ? " above" : "") + (px < 12 ? " thin" : "") + (px < 3 ? " hair" : "");
  const left = above ? 0 : (tree.start[i] - tree.start[view.zoom]) * scale;
  const row = view.flipped ? rows - 1 - tree.depth[i] : tree.depth[i];
  box.style.cssText = `left:${left.toFixed(2)}px;width:${px.toFixed(2)}px;top:${row * ROW}px`;
  box.dataset.i = i;
  box.dataset.name = f.name;
  box.setAttribute("role", "treeitem");
  box.setAttribute("aria-level", tree.depth[i] + 1);
  box.setAttribute("aria-label", f.name + ", " + percent(tree.value[i], tree.value[0]) + (samples(i) && ", " + samples(i)));
  box.tabIndex = -1;
  if (px >= 24) box.textContent = label(f.name, px);
  return box;
}

// label shortens a name that does not fit by the path in front of it, as in
// "github.com/lowflame/lowflame/stack.(*Trace).Lookup".
function label(name, px) {
  if (name.length * 6.5 < px) return name;
  return name.replace(/^[^\s(<[]*\//, "") || name;
}

/* ---- zoom and selection ---- */

function zoom(i) {
  view.zoom = view.selected = i;
  draw();
  remember();
  view.boxes.get(i).scrollIntoView({ block: "nearest" });
}

function select(i, focus) {
  const old = view.boxes.get(view.selected);
  if (old) { old.classList.remove("selected"); old.tabIndex = -1; }
  view.selected = i;
  const box = view.boxes.get(i);
  if (!box) return;
  box.tabIndex = 0;
  if (focus) {
    box.classList.add("selected");
    box.focus();
    describe(i);
  }
}

// describe shows node i in the line above the quality line.
function describe(i) {
  const f = frameOf(i);
  const name = document.createElement("b");
  name.textContent = f.name;
  const where = place(f);
  $("details").replaceChildren(name, " · " + numbers(i) + (where ? " · " + where : ""));
}

// neighbour returns the drawn node one step from i, or i.
function neighbour(i, key) {
  const out = view.flipped ? "ArrowDown" : "ArrowUp";
  switch (key) {
    case out: return tree.parent[i] >= 0 ? tree.parent[i] : i;
    case view.flipped ? "ArrowUp" : "ArrowDown": {
      const below = i < view.zoom ? [...view.boxes.keys()].find((j) => tree.parent[j] === i) : i + 1;
      return view.boxes.has(below) && tree.parent[below] === i ? below : i;
    }
    case "ArrowRight": return view.boxes.has(tree.end[i]) && tree.depth[tree.end[i]] === tree.depth[i] ? tree.end[i] : i;
    case "ArrowLeft": {
      let best = i;
      for (let j = tree.parent[i] + 1; j > 0 && j < i; j = tree.end[j]) if (view.boxes.has(j)) best = j;
      return best;
    }
  }
  return i;
}

/* ---- search ---- */

// matcher returns a test for names: a regular expression between slashes, else
// a part of the name in any case. It is null for "" and for half an expression.
function matcher(query) {
  const re = /^\/(.+)\/(i?)$/.exec(query);
  if (re) {
    try {
      const r = new RegExp(re[1], re[2]);
      return (name) => r.test(name);
    } catch { return null; }
  }
  const q = query.toLowerCase();
  return q && ((name) => name.toLowerCase().includes(q));
}

// search finds the nodes whose name matches. The share counts a node below
// another match once.
function search(query) {
  view.query = query;
  const test = matcher(query);
  view.hits = null;
  if (test) {
    const frames = tree.data.frames, ok = [];
    for (let f = 0; f < frames.length / 7; f++) ok.push(test(tree.data.strings[frames[7 * f]]));
    const hits = new Set();
    let value = 0, past = 0;
    for (let i = 1; i < tree.n; i++) {
      if (!ok[tree.frame[i]]) continue;
      hits.add(i);
      if (i >= past) { value += tree.value[i]; past = tree.end[i]; }
    }
    if (hits.size) view.hits = hits;
    $("matched").textContent = hits.size ? "matched " + percent(value, tree.value[0]) + " · " + amount(value) : "no match";
  } else {
    $("matched").textContent = "";
  }
  markHits();
  remember();
}

function markHits() {
  $("graph").classList.toggle("searching", view.hits !== null);
  for (const [i, box] of view.boxes) box.classList.toggle("hit", view.hits !== null && view.hits.has(i));
}

function nextHit(step) {
  const hits = view.hits ? [...view.boxes.keys()].filter((i) => view.hits.has(i)) : [];
  if (!hits.length) return;
  let at = step > 0 ? hits.findIndex((i) => i > view.selected) : hits.findLastIndex((i) => i < view.selected);
  if (at < 0) at = step > 0 ? 0 : hits.length - 1;
  select(hits[at], true);
}

/* ---- state in the address: #q=search&z=node&flip=1 ---- */

function remember() {
  const s = new URLSearchParams();
  if (view.query) s.set("q", view.query);
  if (view.zoom) s.set("z", view.zoom);
  if (view.flipped) s.set("flip", "1");
  try {
    history.replaceState(null, "", "#" + s);
  } catch { /* some browsers refuse it for files */ }
}

function recall() {
  const s = new URLSearchParams(location.hash.slice(1));
  const z = Number(s.get("z"));
  view.zoom = view.selected = Number.isInteger(z) && z > 0 && z < tree.n ? z : 0;
  view.flipped = s.get("flip") === "1";
  $("search").value = s.get("q") || "";
  draw();
  search($("search").value);
}

/* ---- tooltip ---- */

function showTip(i, x, y) {
  const f = frameOf(i), tip = $("tip");
  const line = (cls, text) => { const e = document.createElement("div"); e.className = cls; e.textContent = text; return e; };
  const name = document.createElement("b");
  name.textContent = f.name;
  tip.replaceChildren(name, ...[f.file && f.file + f.line, f.binary, f.text].filter(Boolean).map((t) => line("", t)), line("numbers", numbers(i)));
  tip.hidden = false;
  const r = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, x + 16 + r.width > innerWidth ? x - r.width - 12 : x + 16) + "px";
  tip.style.top = Math.max(4, y + 18 + r.height > innerHeight ? y - r.height - 12 : y + 18) + "px";
}

/* ---- wiring ---- */

const nodeAt = (e) => { const box = e.target.closest && e.target.closest(".f"); return box ? Number(box.dataset.i) : -1; };

function onKey(e) {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const typing = e.target === $("search");
  if (e.key === "Escape") {
    if (typing || view.query) { $("search").value = ""; search(""); $("search").blur(); } else if (view.zoom) zoom(0);
  } else if (typing) {
    if (e.key === "Enter") nextHit(e.shiftKey ? -1 : 1);
    return;
  } else if (e.key === "/") {
    $("search").focus(); $("search").select();
  } else if (e.key.startsWith("Arrow")) {
    select(neighbour(view.selected, e.key), true);
  } else if (e.key === "Enter" && (e.target === document.body || nodeAt(e) >= 0)) {
    zoom(view.selected); select(view.selected, true);
  } else if (e.key === "n" || e.key === "N") {
    nextHit(e.shiftKey ? -1 : 1);
  } else if (e.key === "i" || e.key === "I") {
    flip();
  } else if (e.key === "t" || e.key === "T") {
    theme();
  } else {
    return;
  }
  e.preventDefault();
}

function flip() {
  view.flipped = !view.flipped;
  draw();
  remember();
  if (view.flipped) $("scroll").scrollTop = $("scroll").scrollHeight;
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

function drawLegend() {
  const used = new Set();
  for (let f = 3; f < tree.data.frames.length; f += 7) used.add(tree.data.frames[f]);
  for (const k of [...used].sort()) {
    const item = document.createElement("span"), colour = document.createElement("i");
    colour.className = KINDS[k];
    item.append(colour, KIND_TEXT[k]);
    $("legend").append(item);
  }
  if (tree.data.hidden) $("legend").append(tree.data.hidden.toLocaleString("en") + " of the smallest frames are left out");
}

function start() {
  $("title").textContent = $("title").title = tree.data.title;
  $("quality").textContent = tree.data.quality;
  $("total").textContent = [samples(0), amount(tree.value[0])].filter(Boolean).join(" · ");
  drawLegend();
  recall();
  describe(view.zoom);

  const graph = $("graph");
  graph.addEventListener("click", (e) => { const i = nodeAt(e); if (i >= 0) zoom(i); });
  graph.addEventListener("mousemove", (e) => {
    const i = nodeAt(e);
    if (i < 0) { $("tip").hidden = true; return; }
    showTip(i, e.clientX, e.clientY);
    describe(i);
  });
  graph.addEventListener("mouseleave", () => { $("tip").hidden = true; });
  $("search").addEventListener("input", () => search($("search").value));
  $("reset").addEventListener("click", () => zoom(0));
  $("flip").addEventListener("click", flip);
  $("theme").addEventListener("click", theme);
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", recall);
  let pending = 0;
  addEventListener("resize", () => { cancelAnimationFrame(pending); pending = requestAnimationFrame(draw); });
}

start();
