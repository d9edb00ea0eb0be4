// All heads of all layers, a small map each; one is chosen.

const THUMBNAIL = 48; // pixels; of more tokens the largest weight of some is shown

class HeadGrid {
  constructor(view) {
    this.view = view;
    const table = view.section.querySelector(".heads table");
    const header = (row, text, scope) => {
      const cell = document.createElement("th");
      cell.scope = scope;
      cell.textContent = text;
      row.append(cell);
      return cell;
    };
    const top = table.createTHead().insertRow();
    top.insertCell();
    COLUMNS.forEach((name, column) => {
      header(top, name, "col").classList.toggle("summary", column >= page.heads.length);
    });
    const body = table.createTBody();
    this.buttons = page.layers.map((layer, row) => {
      const cells = body.insertRow();
      header(cells, `layer ${layer}`, "row");
      return COLUMNS.map((_, column) => {
        const button = document.createElement("button");
        button.type = "button";
        button.ariaLabel = `layer ${layer}, ${columnName(column)}`;
        button.title = button.ariaLabel;
        button.append(document.createElement("canvas"));
        button.addEventListener("click", () => select({ layer: row, column }));
        button.addEventListener("keydown", (event) => this.move(event, row, column));
        const cell = cells.insertCell();
        cell.classList.toggle("summary", column >= page.heads.length);
        cell.append(button);
        return button;
      });
    });
  }

  move(event, row, column) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!(event.key in step)) return;
    event.preventDefault();
    const [down, right] = step[event.key];
    const button = this.buttons[row + down]?.[column + right];
    button?.focus();
    button?.click();
  }

  draw() {
    if (this.painted !== ramp[255]) {
      this.painted = ramp[255];
      this.buttons.forEach((row, layer) => row.forEach((button, column) => {
        this.paint(button.firstChild, layer, column);
      }));
    }
    this.buttons.forEach((row, layer) => row.forEach((button, column) => {
      const chosen = layer === state.layer && column === state.column;
      button.ariaPressed = String(chosen);
      button.tabIndex = chosen ? 0 : -1;
    }));
  }

  paint(canvas, layer, column) {
    const { weights, text } = this.view;
    const count = text.tokens.length;
    const size = Math.min(count, THUMBNAIL);
    const shares = new Float32Array(size * size);
    for (let i = 0; i < count; i++) {
      const row = Math.floor((i * size) / count) * size;
      for (let j = 0; j < count; j++) {
        const k = row + Math.floor((j * size) / count);
        shares[k] = Math.max(shares[k], weights.share(layer, column, i, j));
      }
    }
    paint(canvas, size, shares);
  }
}
