"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main");
main.textContent = "";
document.title = data.title + " – Palettizer";
document.getElementById("title").textContent = data.title;
document.getElementById("subtitle").textContent = data.subtitle;

function make(tag, attributes, ...children) {
  const svg = ["svg", "rect", "line", "text", "g", "title", "path"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child !== null));
  return node;
}
const bytes = n => n >= 1e9 ? (n / 1e9).toFixed(2) + " GB" : n >= 1e6 ? (n / 1e6).toFixed(2) + " MB" : n >= 1e3 ? (n / 1e3).toFixed(1) + " kB" : n + " B";
const fixed = digits => value => value === null || value === undefined ? "–" : value.toFixed(digits);
const general = value => value === null || value === undefined ? "–" : Number(value.toPrecision(4)).toString();
const decibels = (value, exact) => value === null || value === undefined ? (exact ? "∞" : "–") : value.toFixed(2);

// The width of a picture in its own units: those of the screen, so that its text is as large as all other.
const across = () => Math.max(280, Math.min(960, main.clientWidth - 60));

function section(title, ...children) {
  const id = title.toLowerCase().replaceAll(" ", "-");
  const made = make("section", { "aria-labelledby": id }, make("h2", { id }, title), ...children);
  main.append(made);
  return made;
}

function figures(pairs) {
  return make("dl", { class: "figures" }, ...pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

// A table whose columns sort, whose rows can be sought by name, and, with `choose`, chosen.
function table(caption, columns, rows, choose) {
  const state = { by: -1, down: false, text: "" };
  const body = make("tbody"), said = make("p", { class: "faint", role: "status" });
  const heads = columns.map((column, at) => make("th", { scope: "col", class: column.text ? "text" : null },
    make("button", { type: "button", onclick: () => { state.down = state.by === at ? !state.down : at > 0; state.by = at; draw(); } }, column.name)));
  const draw = () => {
    const text = state.text.toLowerCase();
    const found = rows.filter(row => columns.some(c => typeof c.value(row) === "string" && c.value(row).toLowerCase().includes(text)));
    if (state.by >= 0) {
      const key = columns[state.by].value;
      const least = value => value === null || value === undefined;
      found.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (least(x) || least(y)) return least(x) - least(y);
        const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
        return state.down ? -order : order;
      });
    }
    heads.forEach((head, at) => {
      const order = at === state.by ? (state.down ? "descending" : "ascending") : "none";
      head.setAttribute("aria-sort", order);
      head.firstChild.textContent = columns[at].name + ({ ascending: " ▲", descending: " ▼", none: "" })[order];
    });
    body.replaceChildren(...found.map(row => make("tr", { "data-name": row.name },
      ...columns.map((column, at) => make("td", { class: column.text ? "text" : null }, at === 0 && choose && choose.can(row)
        ? make("button", { type: "button", onclick: () => choose.take(row.name) }, column.show(row)) : column.show(row))))));
    said.textContent = found.length === rows.length ? `${rows.length} row${rows.length === 1 ? "" : "s"}` : `${found.length} of ${rows.length} rows`;
    if (choose) choose.mark();
  };
  const seek = make("input", { type: "search", autocomplete: "off", oninput: event => { state.text = event.target.value; draw(); } });
  draw();
  return make("div", {}, make("label", {}, "Search ", seek), said,
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      make("table", {}, make("caption", { class: "faint" }, caption), make("thead", {}, make("tr", {}, ...heads)), body)));
}

// Bars in the order of the program; `value` of null has no bar.
function bars(label, rows, value, unit, choose, ends = ["first in the program", "last"]) {
  const width = across(), height = 220, left = 44, foot = 18, known = rows.filter(row => value(row) !== null && value(row) !== undefined);
  const most = Math.max(1, ...known.map(value)), least = Math.min(0, ...known.map(value));
  const y = v => 8 + (most - v) / (most - least) * (height - foot - 16);
  const step = (width - left) / Math.max(1, rows.length);
  const picture = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (let at = 0; at <= 4; at++) {
    const v = least + (most - least) * at / 4;
    picture.append(make("line", { x1: left, x2: width, y1: y(v), y2: y(v), stroke: "var(--line)" }),
      make("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, v.toFixed(most - least < 8 ? 1 : 0)));
  }
  rows.forEach((row, at) => {
    const v = value(row);
    if (v === null || v === undefined) return;
    const bar = make("rect", { class: "bar", x: left + at * step + step * .1, width: Math.max(.6, step * .8), y: Math.min(y(v), y(0)),
      height: Math.max(1, Math.abs(y(v) - y(0))), fill: v < 0 ? "var(--bad)" : "var(--accent)" },
      make("title", {}, `${row.name}: ${v.toFixed(2)} ${unit}`));
    if (choose && choose.can(row)) { bar.style.cursor = "pointer"; bar.addEventListener("click", () => choose.take(row.name)); }
    picture.append(bar);
  });
  picture.append(make("text", { x: left, y: height - 2 }, ends[0]), make("text", { x: width, y: height - 2, "text-anchor": "end" }, ends[1]));
  return picture;
}

function histogram(name, shape) {
  const width = across(), height = 260, foot = 22, most = Math.max(1, ...shape.before, ...shape.after);
  const span = shape.high - shape.low || 1, x = v => (v - shape.low) / span * width;
  // counts differ by orders of magnitude between the middle and the tails
  const tall = n => n === 0 ? 0 : Math.log1p(n) / Math.log1p(most) * (height - foot - 24);
  const step = width / shape.before.length;
  const picture = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Histogram of ${name}: values from ${general(shape.low)} to ${general(shape.high)}, ${shape.centroids.length} centroids` });
  shape.before.forEach((n, at) => picture.append(make("rect", { x: at * step, width: Math.max(.5, step - 1), y: height - foot - tall(n), height: tall(n),
    fill: "var(--before)", opacity: .55 }, make("title", {}, `${n} before, ${shape.after[at]} after, from ${general(shape.low + span * at / shape.before.length)}`))));
  shape.after.forEach((n, at) => picture.append(make("rect", { x: at * step + step * .3, width: Math.max(.5, step * .4), y: height - foot - tall(n),
    height: tall(n), fill: "var(--after)", opacity: .7 })));
  shape.centroids.forEach(c => picture.append(make("line", { x1: x(c), x2: x(c), y1: 4, y2: 20, stroke: "var(--after)", "stroke-width": 2 },
    make("title", {}, general(c)))));
  picture.append(make("line", { x1: 0, x2: width, y1: height - foot, y2: height - foot, stroke: "var(--line)" }),
    make("text", { x: 2, y: height - 6 }, general(shape.low)), make("text", { x: width - 2, y: height - 6, "text-anchor": "end" }, general(shape.high)));
  return picture;
}

const key = (...items) => make("p", { class: "key" }, ...items.map(([colour, text]) => make("span", {}, make("i", { style: `background:${colour}` }), text)));

function weights(report, shapes) {
  const saved = report.bytes_after ? report.bytes_before / report.bytes_after : 1;
  section("Sizes", figures([["Before", bytes(report.bytes_before)], ["After", bytes(report.bytes_after)], ["Smaller by", saved.toFixed(2) + "×"],
    ["Bits a weight", report.bits_per_weight.toFixed(2)], ["Weights palettized", `${report.weights.filter(w => w.status === "compressed").length} of ${report.weights.length}`],
    ["Time", report.seconds.toFixed(2) + " s"]]));
  const detail = make("div", { "aria-live": "polite" }, make("p", { class: "faint" }, "Choose a weight in the table or a bar above."));
  const choose = { chosen: null, can: row => row.name in shapes,
    mark() { for (const row of document.querySelectorAll("tr[data-name]")) row.setAttribute("aria-selected", row.dataset.name === this.chosen); },
    take(name) {
      this.chosen = name;
      this.mark();
      const shape = shapes[name], row = report.weights.find(weight => weight.name === name);
      detail.replaceChildren(make("p", { class: "name" }, make("strong", {}, name), ` – ${row.nbits} bits, SNR ${decibels(row.snr_db, row.mse === 0)} dB`),
        histogram(name, shape), key(["var(--before)", "before"], ["var(--after)", "after, and the centroids above"]),
        make("p", { class: "faint" }, `Heights are logarithms of counts. ${shape.note}`));
    } };
  section("Error by weight", bars("SNR of each weight in dB, in the order of the program", report.weights, w => w.status === "compressed" ? w.snr_db : null, "dB", choose),
    make("p", { class: "faint" }, "Signal-to-noise ratio of each weight in dB: higher is better. Weights that were skipped, or that lost nothing, have no bar."));
  section("A weight", detail);
  section("Weights", table("Every weight; the names sort, search and choose", [
    { name: "Name", value: w => w.name, show: w => w.name },
    { name: "Ops", text: true, value: w => w.op_types.join(" "), show: w => w.op_types.join(" ") },
    { name: "Shape", value: w => w.shape.reduce((a, b) => a * b, 1), show: w => w.shape.join("×") },
    { name: "Bits", value: w => w.nbits, show: w => w.nbits === null ? "–" : w.cluster_dim > 1 ? `${w.nbits}/${w.cluster_dim}` : String(w.nbits) },
    { name: "Tables", value: w => w.luts, show: w => w.luts === null ? "–" : String(w.luts) },
    { name: "Before", value: w => w.bytes_before, show: w => bytes(w.bytes_before) },
    { name: "After", value: w => w.bytes_after, show: w => bytes(w.bytes_after) },
    { name: "SNR dB", value: w => w.status !== "compressed" ? null : w.snr_db ?? Infinity, show: w => w.status === "compressed" ? decibels(w.snr_db, true) : "–" },
    { name: "What became of it", text: true, value: w => w.reason ? `skipped: ${w.reason}` : w.mode, show: w => w.reason ? `skipped: ${w.reason}` : w.mode },
  ], report.weights, choose));
  const first = report.weights.find(weight => weight.name in shapes);
  if (first) choose.take(first.name);
}

// A model at several numbers of bits, of which the first is what it was.
function widths(rows) {
  const share = row => 100 * row.right / row.digits;
  section("Bits", bars("Share of the digits read right at each number of bits, in percent", rows, share, "% read right", null, [rows[0].name, rows.at(-1).name]),
    make("p", { class: "faint" }, `Read right, in percent: of ${rows[0].digits} handwritten digits that the network was not trained on.`),
    table("The network at every number of bits", [
      { name: "Bits", value: r => r.name, show: r => r.name },
      { name: "Bytes", value: r => r.bytes, show: r => bytes(r.bytes) },
      { name: "Smaller by", value: r => rows[0].bytes / r.bytes, show: r => (rows[0].bytes / r.bytes).toFixed(2) + "×" },
      { name: "SNR dB", value: r => r.snr_db, show: r => decibels(r.snr_db, false) },
      { name: "Read right", value: share, show: r => share(r).toFixed(1) + " %" },
    ], rows));
}

function comparison(found) {
  const columns = [
    { name: "Name", value: r => r.name, show: r => r.name },
    { name: "SNR dB", value: r => r.broken ? -Infinity : r.snr_db ?? Infinity, show: r => r.broken ? "broken" : decibels(r.snr_db, r.exact) },
    { name: "PSNR dB", value: r => r.psnr_db ?? Infinity, show: r => decibels(r.psnr_db, r.exact) },
    { name: "Cosine", value: r => r.cosine, show: r => fixed(6)(r.cosine) },
    { name: "KL", value: r => r.kl, show: r => general(r.kl) },
    { name: "Largest error", value: r => r.largest_error, show: r => general(r.largest_error) },
    { name: "Arg-max agrees", value: r => r.agreement, show: r => r.agreement === null || r.agreement === undefined ? "–" : (100 * r.agreement).toFixed(2) + " %" },
  ];
  section("Outputs", table("Outputs of the model before and after", columns, found.outputs));
  if (found.layers && found.layers.length) {
    section("Error by layer", bars("SNR of each intermediate value in dB, in the order of the program", [...found.layers].sort((a, b) => a.order - b.order), r => r.snr_db, "dB"),
      make("p", { class: "faint" }, "Signal-to-noise ratio of each value that both programs have, in dB: where it falls, the damage starts."));
    section("Layers", table("Every value that both programs have", columns, found.layers));
  }
}

function recommendations(rows, command) {
  const measured = rows.some(r => r.measured_snr_db !== null);
  const snr = r => measured ? r.measured_snr_db : r.expected_snr_db;
  const what = measured ? "Signal-to-noise ratio of the outputs, as it was measured on inputs, in dB." : "Signal-to-noise ratio of the weights in dB, by their share of the work.";
  const bits = r => Object.entries(r.bits).sort((a, b) => a[0] - b[0]).map(([n, count]) => `${n}: ${count}`).join(", ");
  const named = rows.map(r => ({ ...r, name: bytes(r.bytes) }));
  const columns = [
    { name: "Size", value: r => r.bytes, show: r => bytes(r.bytes) },
    { name: "Smaller by", value: r => r.ratio, show: r => r.ratio.toFixed(2) + "×" },
    { name: "Expected SNR dB", value: r => r.expected_snr_db, show: r => decibels(r.expected_snr_db, false) },
    ...(measured ? [{ name: "Measured SNR dB", value: r => r.measured_snr_db, show: r => decibels(r.measured_snr_db, false) }] : []),
    { name: "Bits: weights", value: bits, show: bits },
    { name: "What to type", value: r => r.target_size, show: r => `${command} --target-size ${r.target_size}` },
  ];
  if (rows.some(r => snr(r) !== null)) {
    section("What is lost", bars("SNR at each size in dB, the smallest first", named, snr, "dB", null, [named[0].name, named.at(-1).name]), make("p", { class: "faint" }, what));
  }
  section("Sizes", table("The model at every size", columns, named));
}

if (data.recommendations) recommendations(data.recommendations, data.command);
if (data.widths) widths(data.widths);
if (data.comparison) comparison(data.comparison);
if (data.report) weights(data.report, data.shapes || {});
