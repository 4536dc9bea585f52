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

/** A Gaussian of .6 of a cell, as figures smooth with: weights of five cells for each of k places. */
const kernels = new Map();
const kernelOf = (k) => {
  if (!kernels.has(k)) {
    const taps = (place) => [-2, -1, 0, 1, 2].map((cell) => {
      const away = (place + 0.5) / k - 0.5 - cell;
      return Math.exp(-(away * away) / (2 * 0.6 * 0.6));
    });
    kernels.set(k, [...Array(k).keys()].map(taps));
  }
  return kernels.get(k);
};

/** Values of lines, k places for each cell along them; what lies beyond an end is left out. */
const alongLines = (values, lines, cells, k, from, to) => {
  const kernel = kernelOf(k);
  const out = new Float32Array(lines * cells * k);
  for (let cell = 0; cell < cells; cell += 1) {
    const [low, high] = [Math.max(cell - 2, 0), Math.min(cell + 2, cells - 1)];
    for (let place = 0; place < k; place += 1) {
      const taps = kernel[place];
      let all = 0;
      for (let i = low; i <= high; i += 1) all += taps[i - cell + 2];
      for (let line = 0; line < lines; line += 1) {
        let sum = 0;
        for (let i = low; i <= high; i += 1) sum += taps[i - cell + 2] * values[from(line, i)];
        out[to(line, cell * k + place)] = sum / all;
      }
    }
  }
  return out;
};

/** A map with k x k pixels a cell. @returns {Float32Array} (h * k, w * k) */
const smoothed = (values, h, w, k) => {
  if (k === 1) return values;
  const wide = alongLines(values, h, w, k, (y, x) => y * w + x, (y, x) => y * w * k + x);
  const at = (x, y) => y * w * k + x;
  return alongLines(wide, w * k, h, k, at, at);
};

/** A map with its outer cells once more around it: they reach to the edges of the photo. */
const wider = (values, h, w) => {
  const out = new Float32Array((h + 2) * (w + 2));
  for (let y = 0; y < h + 2; y += 1) {
    const from = Math.min(Math.max(y - 1, 0), h - 1) * w;
    for (let x = 0; x < w + 2; x += 1) {
      out[y * (w + 2) + x] = values[from + Math.min(Math.max(x - 1, 0), w - 1)];
    }
  }
  return out;
};

/**
 * A map in colour, with a further cell around it. @param {Float32Array} values  @param {number} k pixels along a cell
 * @returns {HTMLCanvasElement}
 */
const mapCanvas = (maps, values, end, k) => {
  const [h, w] = [maps.h + 2, maps.w + 2];
  const canvas = canvasOf(w * k, h * k);
  const context = canvas.getContext('2d');
  const image = context.createImageData(canvas.width, canvas.height);
  const { data } = image;
  const ramp = ramps[state.ramp];
  const fine = smoothed(wider(values, maps.h, maps.w), h, w, k);
  for (let i = 0; i < fine.length; i += 1) {
    const tone = end ? Math.min(fine[i] / end, 1) : evenTone(fine[i] * maps.cells);
    if (!tone) continue;
    const from = Math.round(tone * 255) * 4;
    data[4 * i] = ramp[from];
    data[4 * i + 1] = ramp[from + 1];
    data[4 * i + 2] = ramp[from + 2];
    data[4 * i + 3] = ramp[from + 3];
  }
  context.putImageData(image, 0, 0);
  return canvas;
};

const LARGE_PX = 44; // cells of this size stay squares

/** Draw the map of values over a photo of this size. */
const putMap = (context, maps, values, end, width, height) => {
  const [left, top, w, h] = maps.grid.rect;
  const size = w * width;
  const k = size >= LARGE_PX ? 1 : Math.min(Math.max(Math.ceil(size / 4), 1), 6);
  context.save();
  context.beginPath();
  context.rect(0, 0, width, height);
  context.clip();
  context.imageSmoothingEnabled = size < LARGE_PX;
  context.drawImage(
    mapCanvas(maps, values, end, k),
    (left - w) * width, (top - h) * height, w * (maps.w + 2) * width, h * (maps.h + 2) * height,
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
