// How long the turns took, stage by stage, as a picture.

// The stages in order, and what each one is a wait for.
const STAGES = [
  ["transcript", "end of turn"],
  ["first_token", "first token"],
  ["first_clause", "first clause"],
  ["first_audio", "first sound"],
  ["first_sent", "sending"],
  ["first_played", "playing"],
];
// Turns in the picture.
const SHOWN = 7;
const WIDTH = 400;
const LEFT = 34;
const RIGHT = 56;
const ROW = 24;
const BAR = 14;

export const label = Object.fromEntries(STAGES);

// What a turn waited for, one after another: `{ number, name, from, to }` in milliseconds.
export function segments(stages) {
  const parts = [];
  let from = 0;
  STAGES.forEach(([name], index) => {
    const at = stages[name];
    if (typeof at !== "number") return;
    // A stage may be reached before the one that it follows here: an answer that was begun early.
    const to = Math.max(from, at);
    parts.push({ number: index + 1, name, from, to });
    from = to;
  });
  return parts;
}

// A round number that is about a fifth of it.
export function tick(most) {
  const rough = Math.max(most, 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((round) => round >= rough);
}

export function legend(list) {
  list.replaceChildren(
    ...STAGES.map(([, text], index) => {
      const item = document.createElement("li");
      const colour = document.createElement("i");
      colour.className = `stage-${index + 1}`;
      item.append(colour, text);
      return item;
    }),
  );
}

// Draws the last of the turns into an element. `reports` are as the server sends them.
export function draw(element, reports) {
  const rows = reports
    .map((report) => ({ report, parts: segments(report.stages) }))
    .filter(({ report, parts }) => report.turn > 0 && parts.length > 0)
    .slice(-SHOWN);
  if (rows.length === 0) {
    const text = document.createElement("p");
    text.textContent = "Each turn is drawn here, once there is one.";
    element.replaceChildren(text);
    return;
  }
  const total = (row) => row.parts.at(-1).to;
  const most = Math.max(...rows.map(total));
  const x = (ms) => LEFT + (ms / Math.max(most, 1)) * (WIDTH - LEFT - RIGHT);
  const height = rows.length * ROW + 20;
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img" });
  svg.setAttribute("aria-label", rows.map(inWords).join("; "));
  const step = tick(most);
  for (let ms = 0; ms <= most; ms += step) {
    svg.append(shape("line", { class: "grid", x1: x(ms), x2: x(ms), y1: 0, y2: height - 16 }));
    svg.append(shape("text", { x: x(ms), y: height - 3, "text-anchor": "middle" }, Math.round(ms)));
  }
  rows.forEach((row, index) => {
    const y = index * ROW + (ROW - BAR) / 2;
    svg.append(shape("text", { x: LEFT - 8, y: y + 11, "text-anchor": "end" }, row.report.turn));
    for (const { number, name, from, to } of row.parts) {
      const width = Math.max(0.5, x(to) - x(from));
      const bar = shape("rect", { class: `stage-${number}`, x: x(from), y, width, height: BAR, rx: 2 });
      bar.append(shape("title", {}, `${label[name]}: ${Math.round(to - from)} ms`));
      svg.append(bar);
    }
    const text = `${Math.round(total(row))} ms`;
    svg.append(shape("text", { class: "total", x: x(total(row)) + 5, y: y + 11 }, text));
  });
  element.replaceChildren(svg);
}

// Fills the table's body with the server's percentiles. False where there are none.
export function tabulate(body, percentiles) {
  body.replaceChildren(
    ...percentiles.map(({ stage, p50, p95, p99 }) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = label[stage] ?? stage;
      row.append(head);
      for (const value of [p50, p95, p99]) row.insertCell().textContent = Math.round(value);
      return row;
    }),
  );
  return percentiles.length > 0;
}

function inWords({ report, parts }) {
  const words = parts.map(({ name, from, to }) => `${label[name]} ${Math.round(to - from)}`);
  return `turn ${report.turn}: ${Math.round(parts.at(-1).to)} ms (${words.join(", ")})`;
}

function shape(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}
