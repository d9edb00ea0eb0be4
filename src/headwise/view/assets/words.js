// How alike the vectors of a word in two texts are, layer by layer: one line a word.

const CHART = { height: 280, top: 20, right: 112, bottom: 40, left: 40 };
const LINE = 13; // pixels between two names

class WordChart {
  constructor(section, words) {
    this.words = words;
    this.box = section.querySelector(".chart");
    this.names = words.map(({ word }, index) => {
      const before = words.slice(0, index).filter((other) => other.word === word).length;
      return before ? `${word} (${before + 1})` : word;
    });
    this.buttons = this.names.map((name, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => this.choose(index));
      return button;
    });
    section.querySelector(".choices").append(...this.buttons);
    if (words.length === 0) {
      this.box.textContent = "The texts share no word.";
      section.querySelector("details").hidden = true;
    } else {
      this.fill(section.querySelector("table"));
      new ResizeObserver(() => this.draw()).observe(this.box);
    }
    section.hidden = false;
  }

  choose(index) {
    if (state.word === index) select({ word: null });
    else select({ word: index, tokens: this.words[index].tokens.map((tokens) => tokens[0]) });
  }

  fill(table) {
    const head = table.createTHead().insertRow();
    head.append(...["Word", ...this.words[0].cosines.map((_, k) => this.step(k))].map((name) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = name;
      return cell;
    }));
    const body = table.createTBody();
    this.words.forEach(({ cosines }, index) => {
      const row = body.insertRow();
      for (const value of [this.names[index], ...cosines.map((cosine) => cosine.toFixed(3))])
        row.insertCell().append(value);
    });
  }

  step(k) {
    return k ? `layer ${k - 1}` : "input";
  }

  draw() {
    if (this.words.length === 0) return;
    const width = Math.max(280, this.box.clientWidth);
    const { height, top, right, bottom, left } = CHART;
    const steps = this.words[0].cosines.length;
    const least = Math.min(...this.words.flatMap(({ cosines }) => cosines));
    const low = Math.min(0.9, Math.floor(least * 10) / 10);
    const scale = {
      x: (k) => left + ((width - left - right) * k) / Math.max(1, steps - 1),
      y: (cosine) => top + ((height - top - bottom) * (1 - cosine)) / (1 - low),
    };
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img" });
    svg.ariaLabel = "Cosines of shared words by layer; the numbers are in the table below";
    svg.append(...this.axes(scale, low, steps, width));
    const order = [...this.words.keys()].sort((a, b) => (a === state.word) - (b === state.word));
    const places = this.labels(scale);
    svg.append(...order.map((index) => this.line(index, scale, places.get(index), width)));
    this.box.replaceChildren(svg);
    this.buttons.forEach((button, index) => { button.ariaPressed = String(index === state.word); });
  }

  axes({ x, y }, low, steps, width) {
    const { height, right, bottom, left } = CHART;
    const every = 1 - low > 0.55 ? 2 : 1; // tenths
    const parts = [];
    for (let tenth = 10; tenth >= Math.round(low * 10); tenth -= every) {
      const at = y(tenth / 10);
      parts.push(make("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
      parts.push(make("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, (tenth / 10).toFixed(1)));
    }
    const room = (width - left - right) / Math.max(1, steps - 1);
    const skip = Math.max(1, Math.ceil(20 / room));
    for (let k = 0; k < steps; k += skip) {
      const name = k === 0 ? (room * skip < 36 ? "in" : "input") : String(k - 1);
      parts.push(make("text", { x: x(k), y: height - bottom + 18, "text-anchor": "middle" }, name));
    }
    const middle = (left + width - right) / 2;
    parts.push(make("text", { x: middle, y: height - 6, "text-anchor": "middle" }, "after layer"));
    return parts;
  }

  // Where the names of the lines go: at their ends, moved so that none is on another. Of many words
  // the first that there is room for are named, and the chosen one.
  labels({ y }) {
    const room = Math.floor((CHART.height - CHART.top - CHART.bottom) / LINE);
    const end = (index) => y(this.words[index].cosines.at(-1));
    const named = [...this.words.keys()]
      .sort((a, b) => (b === state.word) - (a === state.word))
      .slice(0, room)
      .sort((a, b) => end(a) - end(b));
    const places = named.map(end);
    for (let k = 1; k < places.length; k++) places[k] = Math.max(places[k], places[k - 1] + LINE);
    let limit = CHART.height - CHART.bottom;
    for (let k = places.length - 1; k >= 0; k--, limit -= LINE) places[k] = Math.min(places[k], limit);
    return new Map(named.map((index, k) => [index, places[k]]));
  }

  line(index, { x, y }, label, width) {
    const { cosines } = this.words[index];
    const chosen = index === state.word;
    const group = make("g", { class: chosen ? "word chosen" : "word" });
    group.dataset.word = index;
    group.addEventListener("click", () => this.choose(index));
    const d = cosines.map((cosine, k) => `${k ? "L" : "M"}${x(k)} ${y(cosine)}`).join("");
    group.append(make("path", { d }), make("path", { d, class: "target" }));
    if (label !== undefined) {
      const name = this.names[index];
      const text = name.length > 14 ? `${name.slice(0, 13)}\u2026` : name;
      group.append(make("text", { x: width - CHART.right + 8, y: label + 4 }, text));
    }
    if (chosen) {
      const every = x(1) - x(0) < 32 ? 2 : 1;
      cosines.forEach((cosine, k) => {
        group.append(make("circle", { cx: x(k), cy: y(cosine), r: 3.5 }));
        if ((cosines.length - 1 - k) % every) return;
        const anchor = k === 0 ? "start" : k === cosines.length - 1 ? "end" : "middle";
        const at = { x: x(k), y: y(cosine) - 8, "text-anchor": anchor };
        group.append(make("text", at, cosine.toFixed(2)));
      });
    }
    return group;
  }
}

function make(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}
