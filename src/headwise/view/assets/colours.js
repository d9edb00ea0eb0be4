// Colours of a share from 0 to 1, as the style sheet has them in light or in dark.

let ramp = new Uint32Array(256);

function readRamp() {
  const style = getComputedStyle(document.documentElement);
  const stops = [0, 1, 2].map((k) => {
    const hex = style.getPropertyValue(`--heat-${k}`).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  });
  ramp = Uint32Array.from({ length: 256 }, (_, step) => {
    const first = step < 128 ? 0 : 1;
    const part = step / 127.5 - first;
    const [r, g, b] = stops[first].map((from, k) =>
      Math.round(from + (stops[first + 1][k] - from) * part));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}

// Paint a canvas, a pixel for each share of `shares`.
function paint(canvas, width, shares) {
  canvas.width = width;
  canvas.height = shares.length / width;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let k = 0; k < pixels.length; k++) pixels[k] = ramp[Math.round(255 * shares[k])];
  context.putImageData(image, 0, 0);
}
