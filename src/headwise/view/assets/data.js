// What the page holds: the JSON that Python wrote, and weights unpacked from it.

const page = JSON.parse(document.getElementById("data").textContent);

// The maps of one layer, side by side: its heads, their mean, and the rollout up to the layer.
const COLUMNS = [...page.heads.map(String), "mean", "rollout"];

function columnName(column) {
  const name = COLUMNS[column];
  return { mean: "mean of the heads", rollout: "rollout" }[name] ?? `head ${name}`;
}

function shown(thousandths) {
  return (thousandths / 1000).toFixed(3);
}

async function inflate(base64) {
  const binary = atob(base64);
  const packed = new Uint8Array(binary.length);
  for (let k = 0; k < packed.length; k++) packed[k] = binary.charCodeAt(k);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Weights in thousandths. A layer is the low bytes of all its maps, then their high bytes.
class Weights {
  constructor(bytes, count) {
    this.bytes = bytes;
    this.count = count; // of tokens
    this.half = COLUMNS.length * count * count;
    this.maxima = new Map();
  }

  at(layer, column, row, other) {
    const low = 2 * layer * this.half + (column * this.count + row) * this.count + other;
    return this.bytes[low] + 256 * this.bytes[low + this.half];
  }

  largest(layer, column) {
    const key = layer * COLUMNS.length + column;
    if (!this.maxima.has(key)) {
      let largest = 1;
      for (let i = 0; i < this.count; i++)
        for (let j = 0; j < this.count; j++)
          largest = Math.max(largest, this.at(layer, column, i, j));
      this.maxima.set(key, largest);
    }
    return this.maxima.get(key);
  }

  // How far along the scale of colours a weight is, 0 to 1: the footer of the page explains it.
  share(layer, column, row, other) {
    return Math.sqrt(this.at(layer, column, row, other) / this.largest(layer, column));
  }
}
