// Pixels: the pale ground, a map in colour, circles of samples, cells of a box.

/** @returns {HTMLCanvasElement} */
const canvasOf = (width, height) => {
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(Math.round(width), 1);
  canvas.height = Math.max(Math.round(height), 1);
  return canvas;
};

const LEVEL_COLOURS = ['#0072b2', '#009e73', '#e69f00', '#a8327d', '#56b4e9', '#7a5230'];

/** The photo grey and pale, so that colour means attention. @returns {HTMLCanvasElement} */
const paleGround = (photo) => {
  const canvas = canvasOf(photo.naturalWidth, photo.naturalHeight);
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(photo, 0, 0, canvas.width, canvas.height);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = image;
  const count = new Uint32Array(256);
  for (let i = 0; i < data.length; i += 4) {
    data[i] = 0.2126 * data[i] + 0.7152 * data[i + 1] + 0.0722 * data[i + 2];
    count[data[i]] += 1;
  }
  const tone = toneOf(count, data.length / 4);
  for (let i = 0; i < data.length; i += 4) {
    const grey = tone[data[i]];
    data[i] = grey; data[i + 1] = grey; data[i + 2] = grey;
  }
  context.putImageData(image, 0, 0);
  return canvas;
};

/** Greys between the 1st and 99th percentile fill the range of L* 60 to 97; the median its middle. */
const toneOf = (count, total) => {
  const at = (share) => {
    let sum = 0;
    for (let i = 0; i < 256; i += 1) { sum += count[i]; if (sum >= share * total) return i; }
    return 255;
  };
  let [low, middle, high] = [at(0.01), at(0.5), at(0.99)];
  const span = Math.max(high - low, 40);
  low = (low + high - span) / 2;
  middle = Math.min(Math.max((middle - low) / span, 0.02), 0.98);
  const gamma = Math.min(Math.max(Math.log(0.5) / Math.log(middle), 0.5), 2);
  return Uint8Array.from({ length: 256 }, (_, grey) => {
    const tone = Math.min(Math.max((grey - low) / span, 0), 1) ** gamma;
    return 145 + 101 * tone; // sRGB of L* 60 and 97
  });
};

/** Where a scale ends: 0 for the scale of even spreads. @param {any} maps */
const scaleEnd = (maps, row, values) => {
  if (state.norm === 'even') return 0;
  if (state.norm === 'head') return values.reduce((a, b) => Math.max(a, b), 0);
  const all = maps.heads * maps.cells;
  const codes = maps.codes.subarray(row * all, (row + 1) * all);
  return maps.table[codes.reduce((a, b) => Math.max(a, b), 0)];
};

/** A map in colour, a pixel a cell. @param {Float32Array} values @returns {HTMLCanvasElement} */
const mapCanvas = (maps, values, end) => {
  const canvas = canvasOf(maps.w, maps.h);
  const context = canvas.getContext('2d');
  const image = context.createImageData(maps.w, maps.h);
  const { data } = image;
  const ramp = ramps[state.ramp];
  for (let i = 0; i < values.length; i += 1) {
    const tone = end ? Math.min(values[i] / end, 1) : evenTone(values[i] * maps.cells);
    const from = Math.round(tone * 255) * 4;
    data[4 * i] = ramp[from];
    data[4 * i + 1] = ramp[from + 1];
    data[4 * i + 2] = ramp[from + 2];
    data[4 * i + 3] = ramp[from + 3];
  }
  context.putImageData(image, 0, 0);
  return canvas;
};

/** Draw a map over a photo of this size. Large cells stay cells. */
const putMap = (context, canvas, grid, width, height) => {
  const [left, top, w, h] = grid.rect;
  context.save();
  context.beginPath();
  context.rect(0, 0, width, height);
  context.clip();
  context.imageSmoothingEnabled = w * width < 44;
  context.imageSmoothingQuality = 'high';
  context.drawImage(
    canvas, left * width, top * height, w * canvas.width * width, h * canvas.height * height,
  );
  context.restore();
};

/** The samples of a query: {x, y, weight, level, head}, places as shares of the photo; or null. */
const samplesOf = (row, head = state.head) => {
  const name = `samples/${state.layer}/${state.mode}`;
  if (!picture.has(name)) return [];
  const array = picture.array(name, () => redraw('all'));
  if (!array) return null;
  const [, queries, heads, levels, points] = picture.shape(name);
  const all = queries * heads * levels * points;
  const grids = picture.facts.grids[state.layer];
  const found = [];
  for (const m of headsOf(head, heads)) {
    for (let level = 0; level < levels; level += 1) {
      if (state.level !== SUM && Number(state.level) !== level) continue;
      const { photo } = grids[level];
      for (let p = 0; p < points; p += 1) {
        const i = ((row * heads + m) * levels + level) * points + p;
        const x = (array[i] / 65535) * 2 - 0.5;
        const y = (array[all + i] / 65535) * 2 - 0.5;
        const weight = array[2 * all + i] / 65535;
        found.push({ x: x / photo[0], y: y / photo[1], weight, level, head: m });
      }
    }
  }
  return found;
};

/** Circles: area by weight, colour by level, with a white ring. unit: radius of the weight 1. */
const putSamples = (context, samples, width, height, unit) => {
  for (const one of [...samples].sort((a, b) => b.weight - a.weight)) {
    const radius = Math.sqrt(one.weight) * unit;
    if (radius < 0.4) continue;
    context.beginPath();
    context.arc(one.x * width, one.y * height, radius, 0, 2 * Math.PI);
    context.fillStyle = LEVEL_COLOURS[one.level % LEVEL_COLOURS.length];
    context.globalAlpha = 0.85;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = Math.max(unit / 40, 0.7);
    context.strokeStyle = '#ffffff';
    context.stroke();
  }
};

/** The cells of a query's box, signed: orange adds, blue takes away. */
const putCells = (context, row, width, height) => {
  const cells = picture.facts.cells[state.layer];
  const name = `cells/${state.layer}`;
  const codes = picture.array(name, () => redraw('all'));
  if (!codes) return;
  const [n] = picture.shape(name).slice(-1);
  const [x0, y0, x1, y1] = sharesOf(cells.boxes[row]);
  const lut = ramps.signed;
  const mine = codes.subarray(row * n * n, (row + 1) * n * n);
  const most = mine.reduce((a, c) => Math.max(a, Math.abs(c - 128)), 1);
  mine.forEach((code, i) => {
    const at = Math.round(((code - 128) / most) * 127.5 + 127.5) * 4;
    context.fillStyle = `rgb(${lut[at]} ${lut[at + 1]} ${lut[at + 2]} / ${lut[at + 3] / 255})`;
    const left = (x0 + ((x1 - x0) * (i % n)) / n) * width;
    const top = (y0 + ((y1 - y0) * Math.floor(i / n)) / n) * height;
    context.fillRect(left, top, ((x1 - x0) / n) * width + 0.5, ((y1 - y0) / n) * height + 0.5);
  });
};
