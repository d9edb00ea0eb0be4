// What is chosen, the controls that choose it, and the address that keeps it.

const state = { layer: 0, column: 0, direction: "from", tokens: [], word: null };
const views = [];
let chart = null;

function select(changes) {
  Object.assign(state, changes);
  draw();
  try {
    history.replaceState(null, "", `#${address()}`);
  } catch {
    // A frame of a notebook may have no address to keep the choice in.
  }
}

function verb() {
  const rollout = COLUMNS[state.column] === "rollout";
  if (state.direction === "from") return rollout ? "is made of" : "looks at";
  return rollout ? "goes into" : "is looked at by";
}

class TextView {
  constructor(number, text, bytes) {
    this.number = number;
    this.text = text;
    this.name = page.texts.length > 1 ? `text ${number + 1}` : "the text";
    this.variable = page.texts.length > 1 ? ["first", "second"][number] : "trace";
    this.weights = new Weights(bytes, text.tokens.length);
    this.hover = null; // { token, other }, or { token } alone
    this.section = document.getElementById("text").content.cloneNode(true).firstElementChild;
    const heading = this.section.querySelector("h2");
    heading.textContent = this.name[0].toUpperCase() + this.name.slice(1);
    heading.classList.toggle("unseen", page.texts.length === 1);
    this.section.querySelector(".maps").classList.toggle("wide", text.tokens.length > 24);
    document.getElementById("texts").append(this.section);
    this.parts = [new TokenLine(this), new HeatMap(this), new HeadGrid(this)];
  }

  get active() {
    return this.hover?.token ?? state.tokens[this.number];
  }

  label(token) {
    return this.text.tokens[token].text;
  }

  pair(token, other) {
    return state.direction === "from" ? [token, other] : [other, token];
  }

  weight(token, other) {
    return this.weights.at(state.layer, state.column, ...this.pair(token, other));
  }

  share(token, other) {
    return this.weights.share(state.layer, state.column, ...this.pair(token, other));
  }

  // What gives in Python the weights that are shown.
  expression(token) {
    const layer = page.layers[state.layer];
    const column = COLUMNS[state.column];
    const at = state.direction === "from" ? `${token}]` : `:, ${token}]`;
    if (column === "rollout") return `${this.variable}.rollout(${layer + 1})[${at}`;
    if (column === "mean") return `${this.variable}.attention(layers=${layer}).mean(1)[0, ${at}`;
    return `${this.variable}.attention(layers=${layer}, heads=${column})[0, 0, ${at}`;
  }

  point(hover) {
    this.hover = hover;
    this.draw();
  }

  pin(token) {
    this.hover = null;
    select({ tokens: state.tokens.map((old, number) => (number === this.number ? token : old)) });
  }

  draw() {
    for (const part of this.parts) part.draw();
  }
}

function draw() {
  layerChoice.value = String(state.layer);
  columnChoice.value = String(state.column);
  for (const radio of directions) radio.checked = radio.value === state.direction;
  for (const view of views) view.draw();
  chart?.draw();
  drawScale();
}

function drawScale() {
  const scale = document.getElementById("scale");
  paint(scale.querySelector("canvas"), 256, Float32Array.from({ length: 256 }, (_, k) => k / 255));
  const largest = views.map((view) => view.weights.largest(state.layer, state.column));
  const marks = largest.length === 1
    ? ["0", shown(largest[0] / 4), shown(largest[0])]
    : ["0", "", largest.map(shown).join(" and ")];
  scale.querySelectorAll("span").forEach((span, k) => { span.textContent = marks[k]; });
  scale.ariaLabel = `Colours from 0 to ${marks[2]}`;
}

// The address names layers and heads as Python counts them.

function address() {
  const { layer, column, direction, tokens, word } = state;
  const parts = { layer: page.layers[layer], head: COLUMNS[column], direction, token: tokens.join() };
  if (word !== null) parts.word = word;
  return Object.entries(parts).map((pair) => pair.join("=")).join("&");
}

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const layer = page.layers.map(String).indexOf(wanted.get("layer"));
  const column = COLUMNS.indexOf(wanted.get("head"));
  const tokens = (wanted.get("token") ?? "none").split(",").map(Number);
  const word = Number(wanted.get("word") ?? "none");
  if (layer >= 0) state.layer = layer;
  if (column >= 0) state.column = column;
  if (["from", "to"].includes(wanted.get("direction"))) state.direction = wanted.get("direction");
  if (page.texts.every((text, number) => tokens[number] in text.tokens)) {
    state.tokens = tokens.slice(0, page.texts.length);
  }
  state.word = word in (page.words ?? []) ? word : null;
}

function addChoices(menu, names) {
  menu.append(...names.map((name, index) => new Option(name, index)));
}

const layerChoice = document.getElementById("layer");
const columnChoice = document.getElementById("column");
const directions = document.querySelectorAll("[name=direction]");

async function start() {
  const bytes = await Promise.all(page.texts.map((text) => inflate(text.weights)));
  for (const text of page.texts) text.weights = null; // megabytes, where the text is long
  document.getElementById("data").remove();
  document.getElementById("model").textContent = page.model;
  addChoices(layerChoice, page.layers.map(String));
  addChoices(columnChoice, COLUMNS.map((_, column) => columnName(column).replace(/^head /, "")));
  layerChoice.addEventListener("change", () => select({ layer: Number(layerChoice.value) }));
  columnChoice.addEventListener("change", () => select({ column: Number(columnChoice.value) }));
  for (const radio of directions)
    radio.addEventListener("change", () => select({ direction: radio.value }));
  state.tokens = page.texts.map(({ tokens }) =>
    Math.max(0, tokens.findIndex((token) => !token.special)));
  readAddress();
  document.querySelector("main").hidden = false;
  readRamp();
  document.getElementById("texts").classList.toggle("two", page.texts.length > 1);
  page.texts.forEach((text, number) => views.push(new TextView(number, text, bytes[number])));
  if (page.words) chart = new WordChart(document.getElementById("words"), page.words);
  draw();
  addEventListener("hashchange", () => { readAddress(); draw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readRamp(); draw(); });
}

start().catch((error) => {
  const failure = document.getElementById("failure");
  failure.textContent = `This page cannot be shown by this browser: ${error.message}`;
  failure.hidden = false;
  throw error;
});
