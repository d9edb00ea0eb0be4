// The tokens as running text, shaded by the weights of one of them, and what is said of it below.

const NUMBERED = 8; // so many of the strongest have their weight beneath them

class TokenLine {
  constructor(view) {
    this.view = view;
    const { section, text, number } = view;
    this.list = section.querySelector(".tokens");
    this.list.setAttribute("aria-label", `Tokens of ${view.name}`);
    this.reading = section.querySelector(".reading");
    this.python = section.querySelector(".python code");
    this.table = section.querySelector(".table");
    this.spans = text.tokens.map((token, index) => {
      const span = document.createElement("span");
      span.className = token.special ? "token special" : "token";
      span.role = "option";
      if (token.special) span.dir = "ltr"; // so that the first word sets the text's direction
      span.textContent = token.text;
      span.title = `token ${index}: ${token.name}`;
      this.list.append(token.gap, span);
      return span;
    });
    if (text.rest) {
      const rest = document.createElement("s");
      rest.textContent = text.rest;
      rest.title = "not read by the model";
      this.list.append(rest);
    }
    const index = (event) => this.spans.indexOf(event.target.closest?.(".token"));
    this.list.addEventListener("pointerover", (event) => {
      if (index(event) >= 0) view.point({ token: index(event) });
    });
    this.list.addEventListener("pointerleave", () => view.point(null));
    this.list.addEventListener("focusin", (event) => {
      if (state.tokens[number] !== index(event)) view.pin(index(event));
    });
    this.list.addEventListener("click", (event) => this.spans[index(event)]?.focus());
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.table.addEventListener("toggle", () => this.draw());
  }

  move(event) {
    const onwards = getComputedStyle(this.list).direction === "rtl" ? -1 : 1;
    const at = state.tokens[this.view.number];
    const to = {
      ArrowRight: at + onwards,
      ArrowLeft: at - onwards,
      Home: 0,
      End: this.spans.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.spans[to]?.focus();
  }

  draw() {
    const { view } = this;
    const token = view.active;
    const weights = this.spans.map((_, other) => view.weight(token, other));
    const order = [...weights.keys()].sort((a, b) => weights[b] - weights[a]);
    const word = page.words?.[state.word]?.tokens[view.number] ?? [];
    this.spans.forEach((span, other) => {
      span.dataset.weight = shown(weights[other]);
      span.style.setProperty("--share", `${(100 * view.share(token, other)).toFixed(1)}%`);
      const pinned = other === state.tokens[view.number];
      span.tabIndex = pinned ? 0 : -1;
      span.ariaSelected = String(pinned);
      span.classList.toggle("active", other === token);
      span.classList.toggle("other", other === view.hover?.other);
      span.classList.toggle("shared", word.includes(other));
      span.classList.remove("strong");
    });
    this.number(order.slice(0, NUMBERED).filter((other) => weights[other] > weights[order[0]] / 20));
    this.say(token, order.slice(0, 5), weights);
    if (this.table.open) this.fill(order, weights);
  }

  // Write the weights of the strongest beneath them, where there is room for a number.
  number(strongest) {
    const taken = [];
    for (const other of strongest) {
      const box = this.spans[other].getClientRects()[0];
      const middle = (box.left + box.right) / 2;
      if (taken.some(([x, y]) => Math.abs(y - box.bottom) < 12 && Math.abs(x - middle) < 36)) continue;
      taken.push([middle, box.bottom]);
      this.spans[other].classList.add("strong");
    }
  }

  say(token, strongest, weights) {
    const { view } = this;
    const name = (index) => {
      const bdi = document.createElement("bdi");
      bdi.textContent = view.label(index);
      return bdi;
    };
    const parts = strongest.flatMap((other, place) =>
      [place ? ", " : " ", name(other), ` ${shown(weights[other])}`]);
    this.reading.replaceChildren(name(token), ` (token ${token}) ${verb()}`, ...parts);
    this.python.textContent = view.expression(token);
  }

  fill(order, weights) {
    this.table.querySelector("tbody").replaceChildren(...order.map((other) => {
      const row = document.createElement("tr");
      for (const value of [other, this.view.label(other), shown(weights[other])])
        row.insertCell().append(value);
      return row;
    }));
  }
}
