// The chosen head as a heat map: rows look, columns are looked at.

class HeatMap {
  constructor(view) {
    this.view = view;
    const { section, text } = view;
    const part = (selector) => section.querySelector(`.map ${selector}`);
    [this.heading, this.scroll, this.frame, this.canvas, this.band, this.cursor, this.output] =
      ["h3", ".scroll", ".frame", "canvas", ".band", ".cursor", "output"].map(part);
    [this.rows, this.columns] = [".rows", ".columns"].map((selector) => {
      part(selector).append(...text.tokens.map((_, index) => {
        const name = document.createElement("bdi");
        name.textContent = view.label(index);
        return name;
      }));
      return [...part(selector).children];
    });
    this.cell = null; // [row, column] that the keyboard is at
    this.canvas.addEventListener("pointermove", (event) => this.point(this.cellAt(event)));
    this.canvas.addEventListener("pointerleave", () => this.leave());
    this.canvas.addEventListener("click", (event) => this.pin(this.cellAt(event)));
    this.canvas.addEventListener("keydown", (event) => this.move(event));
    this.canvas.addEventListener("blur", () => this.leave());
    this.resize();
    new ResizeObserver(() => this.resize()).observe(this.scroll);
  }

  // Cells are whole pixels: as large as fits, large enough to be named while there are not too many.
  resize() {
    const count = this.view.text.tokens.length;
    const room = (this.scroll.clientWidth - 96) / count;
    const least = count <= 96 ? 13 : 3;
    this.size = Math.max(least, Math.min(32, Math.floor(room)));
    const named = this.size >= 12;
    this.frame.style.setProperty("--cell", `${this.size}px`);
    this.canvas.style.width = this.canvas.style.height = `${this.size * count}px`;
    for (const name of [...this.rows, ...this.columns]) name.hidden = !named;
    this.mark();
  }

  cellAt(event) {
    const last = this.view.text.tokens.length - 1;
    const at = (offset) => Math.max(0, Math.min(last, Math.floor(offset / this.size)));
    return [at(event.offsetY), at(event.offsetX)];
  }

  point(cell) {
    const [token, other] = state.direction === "from" ? cell : [cell[1], cell[0]];
    this.view.point({ token, other });
  }

  pin(cell) {
    this.view.pin(cell[state.direction === "from" ? 0 : 1]);
  }

  leave() {
    this.cell = null;
    this.view.point(null);
  }

  move(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.key === "Enter" && this.cell) this.pin(this.cell);
    if (!(event.key in step)) return;
    event.preventDefault();
    const last = this.view.text.tokens.length - 1;
    const from = this.cell ?? [this.view.active, this.view.active];
    this.cell = from.map((at, axis) => Math.max(0, Math.min(last, at + step[event.key][axis])));
    this.point(this.cell);
    this.cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  draw() {
    const { view } = this;
    const name = `layer ${page.layers[state.layer]}, ${columnName(state.column)}`;
    this.heading.textContent = name[0].toUpperCase() + name.slice(1);
    this.canvas.ariaLabel = `Heat map of ${name}: arrow keys go from cell to cell`;
    const key = [state.layer, state.column, ramp[255]].join();
    if (key !== this.painted) {
      this.painted = key;
      const count = view.text.tokens.length;
      const shares = new Float32Array(count * count);
      for (let i = 0, k = 0; i < count; i++)
        for (let j = 0; j < count; j++, k++)
          shares[k] = view.weights.share(state.layer, state.column, i, j);
      paint(this.canvas, count, shares);
    }
    this.mark();
  }

  // Frame the row or column of the active token, and the cell that is pointed at.
  mark() {
    const { view, size } = this;
    const token = view.active;
    const other = view.hover?.other;
    const across = state.direction === "from";
    const extent = size * view.text.tokens.length;
    const px = (at) => `${at * size}px`;
    Object.assign(this.band.style, across
      ? { top: px(token), left: 0, width: `${extent}px`, height: px(1) }
      : { top: 0, left: px(token), width: px(1), height: `${extent}px` });
    this.cursor.hidden = other === undefined;
    const [row, column] = across ? [token, other] : [other, token];
    if (other !== undefined) Object.assign(this.cursor.style, { top: px(row), left: px(column) });
    this.rows.forEach((name, index) => name.classList.toggle("on", index === row));
    this.columns.forEach((name, index) => name.classList.toggle("on", index === column));
    this.output.textContent = other === undefined
      ? "Rows look at columns. Point at a cell, or go from cell to cell by the arrow keys."
      : `${view.label(token)} (token ${token}) ${verb()} ${view.label(other)} (token ${other}): ` +
        shown(view.weight(token, other));
  }
}
