"use strict";
const studies = JSON.parse(document.getElementById("content").textContent);
const at = (id) => document.getElementById(id);
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"];
const STATES = { completed: COLOURS[0], stopped: COLOURS[1], diverged: COLOURS[3], failed: COLOURS[4] };
const colourOf = (status) => STATES[status] || COLOURS[6];
let study = studies[0];

// Plotly reads some tags in texts, and names come from users.
const inert = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const shown = (value) =>
  value === null ? "–" : typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);

/** Load plotly's script, which the page holds compressed. */
async function loadPlotly() {
  const packed = Uint8Array.from(atob(at("plotly").textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function draw(id, traces, layout) {
  const axis = { automargin: true, gridcolor: "#e6e8e5", zeroline: false, exponentformat: "power" };
  const base = {
    margin: { l: 60, r: 20, t: 20, b: 45 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", color: "#1d2125" }, showlegend: false, hovermode: "closest",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "#98a1a9", activecolor: "#1d2125" },
  };
  const axes = { xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  Plotly.react(id, traces, { ...base, ...layout, ...axes }, { responsive: true, displaylogo: false });
}

const errors = () => [
  { label: study.metric, of: (trial) => trial.value },
  ...study.tests.map((label, place) => ({ label, of: (trial) => trial.tests[place] })),
];
const hover = (trial) =>
  [`<b>trial ${trial.number}</b>, ${inert(trial.status)}`, inert(trial.arm),
    ...study.settings.map((setting, place) => `${inert(setting.label)}: ${inert(shown(trial.settings[place]))}`),
    `${inert(study.metric)}: ${shown(trial.value)}`].join("<br>");
const valued = () => study.trials.filter((trial) => trial.value !== null);

/** A setting as an axis of parallel coordinates: names and logarithms become plain numbers. */
function dimension(setting, place, trials) {
  const values = trials.map((trial) => trial.settings[place]);
  if (!setting.numeric) {
    const names = [...new Set(values)].sort();
    return { label: inert(setting.label), values: values.map((name) => names.indexOf(name)),
      tickvals: names.map((_, index) => index), ticktext: names.map(inert) };
  }
  const known = values.filter((value) => value !== null);
  const scaled = (value) => (setting.log ? Math.log10(value) : value);
  const ends = [Math.min(...known.map(scaled)), Math.max(...known.map(scaled))];
  const below = ends[0] - 0.12 * (ends[1] - ends[0] || 1);
  const absent = known.length < values.length;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => ends[0] + part * (ends[1] - ends[0]));
  return {
    label: inert(setting.label), range: [absent ? below : ends[0], ends[1]],
    values: values.map((value) => (value === null ? below : scaled(value))),
    tickvals: absent ? [below, ...ticks] : ticks,
    ticktext: [...(absent ? ["none"] : []), ...ticks.map((tick) => shown(setting.log ? 10 ** tick : tick))],
  };
}

function parallel() {
  const trials = valued();
  const settings = study.settings.map((setting, place) => dimension(setting, place, trials));
  const value = { label: inert(study.metric), values: trials.map((trial) => trial.value) };
  const line = { color: value.values, colorscale: "Viridis", showscale: true };
  draw("parallel", [{ type: "parcoords", dimensions: [...settings, value], line }], { margin: { l: 80, r: 60, t: 60, b: 20 } });
}

const axisOf = (setting) => ({ title: { text: inert(setting.label) }, type: !setting.numeric ? "category" : setting.log ? "log" : "linear" });

function slice() {
  const place = Number(at("slice-x").value);
  const error = errors()[Number(at("slice-y").value)];
  const trials = study.trials.filter((trial) => error.of(trial) !== null && trial.settings[place] !== null);
  const points = {
    type: "scatter", mode: "markers", x: trials.map((trial) => trial.settings[place]), y: trials.map(error.of),
    text: trials.map(hover), hoverinfo: "text",
    marker: { size: 9, color: trials.map((trial) => trial.number), colorscale: "Blues", reversescale: false, cmin: -study.trials.length / 2,
      showscale: true, colorbar: { title: { text: "trial" } }, line: { width: 0.5, color: "#1d2125" } },
  };
  draw("slice", [points], { xaxis: axisOf(study.settings[place]), yaxis: { title: { text: inert(error.label) } } });
}

const SIDE = 36;
/** Values on a grid between trials, weighted by inverse squared distance. */
function interpolated(x, y, z) {
  const ends = (values) => [Math.min(...values), Math.max(...values)];
  const steps = ([low, high]) => Array.from({ length: SIDE }, (_, step) => low + (step / (SIDE - 1)) * (high - low || 1));
  const across = steps(ends(x)), up = steps(ends(y));
  const wide = across[SIDE - 1] - across[0], high = up[SIDE - 1] - up[0];
  const value = (a, b) => {
    let sum = 0, weights = 0;
    z.forEach((each, place) => {
      const weight = 1 / (((x[place] - a) / wide) ** 2 + ((y[place] - b) / high) ** 2 + 1e-4);
      sum += weight * each;
      weights += weight;
    });
    return sum / weights;
  };
  return { across, up, grid: up.map((b) => across.map((a) => value(a, b))) };
}

function contour() {
  const places = [Number(at("contour-x").value), Number(at("contour-y").value)];
  const trials = valued().filter((trial) => places.every((place) => trial.settings[place] !== null));
  if (!trials.length) return draw("contour", [], {});
  const axes = places.map((place) => {
    const setting = study.settings[place];
    const names = [...new Set(trials.map((trial) => trial.settings[place]))].sort();
    const values = trials.map((trial) => {
      const value = trial.settings[place];
      return !setting.numeric ? names.indexOf(value) : setting.log ? Math.log10(value) : value;
    });
    const axis = { title: { text: inert(setting.label) } };
    if (!setting.numeric) Object.assign(axis, { tickvals: names.map((_, index) => index), ticktext: names.map(inert) });
    if (setting.log) {
      const low = Math.min(...values), high = Math.max(...values);
      const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => low + part * (high - low));
      Object.assign(axis, { tickvals: ticks, ticktext: ticks.map((tick) => shown(10 ** tick)) });
    }
    return { values, axis };
  });
  const { across, up, grid } = interpolated(axes[0].values, axes[1].values, trials.map((trial) => trial.value));
  const surface = { type: "contour", x: across, y: up, z: grid, colorscale: "Viridis", hoverinfo: "skip", contours: { coloring: "heatmap" } };
  const points = { type: "scatter", mode: "markers", x: axes[0].values, y: axes[1].values, text: trials.map(hover), hoverinfo: "text",
    marker: { size: 7, color: "#fff", line: { width: 1, color: "#1d2125" } } };
  return draw("contour", [surface, points], { xaxis: axes[0].axis, yaxis: axes[1].axis });
}

function curves() {
  const traces = study.trials.filter((trial) => trial.curve[0].length).map((trial) => ({
    type: "scatter", mode: "lines+markers", x: trial.curve[0], y: trial.curve[1], opacity: 0.75,
    line: { width: 1.3, color: colourOf(trial.status) }, marker: { size: 3 },
    text: trial.curve[1].map((value) => `${hover(trial)}<br>here: ${shown(value)}`), hoverinfo: "text",
  }));
  const shapes = study.rungs.map((epoch) => ({ type: "line", x0: epoch, x1: epoch, yref: "paper", y0: 0, y1: 1, line: { dash: "dot", width: 1, color: "#626a72" } }));
  const annotations = study.rungs.map((epoch, place) => ({ x: epoch, y: 1, yref: "paper", yanchor: "bottom", text: `rung ${place + 1}`, showarrow: false, font: { size: 10 } }));
  draw("curves", traces, { shapes, annotations, xaxis: { title: { text: "finetuning epoch" } }, yaxis: { type: "log", title: { text: inert(study.metric) } } });
}

function pareto() {
  const done = valued().filter((trial) => trial.seconds !== null);
  const points = { type: "scatter", mode: "markers", x: done.map((trial) => trial.seconds / 60), y: done.map((trial) => trial.value),
    text: done.map(hover), hoverinfo: "text", marker: { size: 8, color: done.map((trial) => colourOf(trial.status)) } };
  let best = Infinity;
  const front = done.filter((trial) => trial.status === "completed")
    .sort((a, b) => a.seconds - b.seconds || a.value - b.value)
    .filter((trial) => trial.value < best && ((best = trial.value), true));
  const line = { type: "scatter", mode: "lines", x: front.map((trial) => trial.seconds / 60), y: front.map((trial) => trial.value),
    line: { shape: "hv", color: "#1d2125", width: 1 }, hoverinfo: "skip" };
  draw("pareto", [line, points], { xaxis: { title: { text: "compute of both stages (min)" }, rangemode: "tozero" },
    yaxis: { type: "log", title: { text: inert(study.metric) } } });
}

function timeline() {
  const trials = study.trials.filter((trial) => trial.begin !== null && trial.end !== null);
  const bars = { type: "bar", orientation: "h", y: trials.map((trial) => trial.number), base: trials.map((trial) => trial.begin),
    x: trials.map((trial) => trial.end - trial.begin), text: trials.map(hover), hoverinfo: "text", textposition: "none",
    marker: { color: trials.map((trial) => colourOf(trial.status)) } };
  draw("timeline", [bars], { xaxis: { title: { text: "time since the study's start (min)" } }, yaxis: { title: { text: "trial" }, autorange: "reversed" } });
}

function importances() {
  const rows = study.importances;
  at("important").hidden = !rows.length;
  if (!rows.length) return;
  const ends = { type: "data", symmetric: false, array: rows.map((row) => row.high - row.importance), arrayminus: rows.map((row) => row.importance - row.low) };
  const bars = { type: "bar", orientation: "h", y: rows.map((row) => inert(row.label)), x: rows.map((row) => row.importance), error_x: ends, marker: { color: COLOURS[0] } };
  draw("importances", [bars], { xaxis: { title: { text: "share of error variance (%)" }, range: [0, 100] }, yaxis: { autorange: "reversed" } });
}

let order = { place: 0, down: false };
function table() {
  const heads = ["trial", "arm", "status", ...study.settings.map((setting) => setting.label), study.metric, ...study.tests, "compute (min)"];
  const words = at("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = study.trials
    .map((trial) => [trial.number, trial.arm, trial.status, ...trial.settings, trial.value, ...trial.tests, trial.seconds === null ? null : trial.seconds / 60])
    .filter((row) => words.every((word) => row.map(shown).join(" ").toLowerCase().includes(word)));
  rows.sort((a, b) => compare(a[order.place], b[order.place]) * (order.down ? -1 : 1));
  const head = document.createElement("tr");
  heads.forEach((label, place) => {
    const button = document.createElement("button");
    button.textContent = label + (place === order.place ? (order.down ? " ▼" : " ▲") : "");
    button.onclick = () => { order = { place, down: place === order.place && !order.down }; table(); };
    const cell = document.createElement("th");
    cell.append(button);
    head.append(cell);
  });
  const body = rows.map((row) => {
    const line = document.createElement("tr");
    row.forEach((value) => { line.insertCell().textContent = shown(value); });
    return line;
  });
  at("trials").replaceChildren(head, ...body);
  at("count").textContent = `${rows.length} of ${study.trials.length}`;
}

/** Numbers by size, texts by alphabet, and what is missing last. */
function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

function choices(id, labels, chosen) {
  at(id).replaceChildren(...labels.map((label, place) => new Option(label, place, place === chosen, place === chosen)));
}

function show() {
  const labels = study.settings.map((setting) => setting.label);
  choices("slice-x", labels, 0);
  choices("slice-y", errors().map((error) => error.label), 0);
  choices("contour-x", labels, 0);
  choices("contour-y", labels, Math.min(1, labels.length - 1));
  order = { place: 0, down: false };
  table();
  const plots = labels.length ? [parallel, slice, contour, curves, pareto, timeline, importances] : [curves, pareto, timeline, importances];
  plots.forEach((plot) => plot());
}

at("slice-x").onchange = at("slice-y").onchange = () => slice();
at("contour-x").onchange = at("contour-y").onchange = () => contour();
at("filter").oninput = () => table();
choices("study", studies.map((each) => each.name), 0);
at("studies").hidden = studies.length < 2;
at("study").onchange = () => { study = studies[Number(at("study").value)]; show(); };
loadPlotly().then(show);
