// Numbers from the quantised arrays: maps, ranks of queries at a point, terms of the logits.

const tables = new Map(); // "cells levels" -> weights of the codes

/** @returns {Float32Array} weight of each code: the curve of quantise.py */
const weightTable = (cells, levels) => {
  const key = `${cells} ${levels}`;
  if (!tables.has(key)) {
    const step = Math.log1p(cells ** 2) / levels; // of log(1 + r * r)
    const weight = (code) => Math.sqrt(Math.expm1(code * step)) / cells;
    tables.set(key, Float32Array.from({ length: 256 }, (_, code) => weight(code)));
  }
  return tables.get(key);
};

/** The grid, curve and codes of what is shown. @returns {any} null while it is unpacked */
const shownMaps = (level = state.level, mode = state.mode) => {
  const { facts } = picture;
  const number = level === SUM ? facts.finest[state.layer] : Number(level);
  const name = `maps/${state.layer}/${mode}/${level}`;
  const codes = picture.array(name, () => redraw('all'));
  if (!codes) return null;
  const grid = facts.grids[state.layer][number];
  const [h, w] = grid.hw;
  const table = weightTable(...facts.curves[name]);
  return { codes, table, grid, h, w, cells: h * w, heads: facts.heads };
};

/** Heads as numbers. @returns {number[]} */
const headsOf = (head, count) => (typeof head === 'number' ? [head] : [...Array(count).keys()]);

/** How weights of several heads become one. */
const merge = (head, weights) => {
  if (head === 'max') return Math.max(...weights);
  return weights.reduce((sum, x) => sum + x, 0) / weights.length;
};

/**
 * The weights of a map. @returns {Float32Array} (h * w)
 * @param {any} maps of shownMaps  @param {number} row of the query  @param {number|string} head
 */
const mapValues = (maps, row, head) => {
  const { codes, table, cells, heads } = maps;
  const out = new Float32Array(cells);
  const start = row * heads * cells;
  for (const m of headsOf(head, heads)) {
    const from = start + m * cells;
    if (head === 'max') {
      for (let i = 0; i < cells; i += 1) out[i] = Math.max(out[i], table[codes[from + i]]);
    } else for (let i = 0; i < cells; i += 1) out[i] += table[codes[from + i]];
  }
  if (head === 'mean') for (let i = 0; i < cells; i += 1) out[i] /= heads;
  return out;
};

/** The cell of a grid that a point lies in. @returns {number} row-major */
const cellAt = (grid, [x, y]) => {
  const [left, top, width, height] = grid.rect;
  const [h, w] = grid.hw;
  const column = Math.min(Math.max(Math.floor((x - left) / width), 0), w - 1);
  const line = Math.min(Math.max(Math.floor((y - top) / height), 0), h - 1);
  return line * w + column;
};

/** The middle of a cell, as shares of the photo. @returns {number[]} */
const middleOf = (grid, cell) => {
  const [left, top, width, height] = grid.rect;
  const w = grid.hw[1];
  return [left + width * ((cell % w) + 0.5), top + height * (Math.floor(cell / w) + 0.5)];
};

/** The weight of one query at a cell. */
const weightAt = (maps, row, head, cell) => {
  const { codes, table, cells, heads } = maps;
  const start = row * heads * cells + cell;
  if (typeof head === 'number') return table[codes[start + head * cells]];
  let sum = 0;
  let most = 0;
  for (let m = 0; m < heads; m += 1) {
    const weight = table[codes[start + m * cells]];
    sum += weight;
    if (weight > most) most = weight;
  }
  return head === 'max' ? most : sum / heads;
};

/** Queries by their attention at a point, most first. @returns {{query: number, weight: number}[]} */
const rankedAt = (maps, at) => {
  const cell = cellAt(maps.grid, at);
  const rows = picture.facts.queries.map((query, row) => (
    { query, row, weight: weightAt(maps, row, state.head, cell) }));
  return rows.sort((a, b) => b.weight - a.weight || a.row - b.row);
};

/** The part of each cell along an axis that lies between two places. borders: (cells + 1) */
const overlaps = (borders, low, high) => Float32Array.from({ length: borders.length - 1 }, (_, i) => {
  const size = borders[i + 1] - borders[i];
  const part = Math.min(high, borders[i + 1]) - Math.max(low, borders[i]);
  return size > 0 ? Math.max(part, 0) / size : 0;
});

/** A function that gives the mass of a map in a box [x0, y0, x1, y1], shares of the photo. */
const massIn = (grid, box) => {
  const [h, w] = grid.hw;
  const columns = overlaps(grid.borders[0], box[0], box[2]);
  const lines = overlaps(grid.borders[1], box[1], box[3]);
  return (values) => {
    let sum = 0;
    for (let y = 0; y < h; y += 1) {
      if (!lines[y]) continue;
      for (let x = 0; x < w; x += 1) sum += values[y * w + x] * lines[y] * columns[x];
    }
    return sum;
  };
};

/** Pixels of the photo as shares of it. */
const sharesOf = (box) => {
  const [height, width] = picture.facts.image.hw;
  return box.map((x, i) => x / (i % 2 ? height : width));
};

/** The cell where a map is largest. */
const peakOf = (values) => {
  let best = 0;
  for (let i = 1; i < values.length; i += 1) if (values[i] > values[best]) best = i;
  return best;
};

/**
 * The terms of the logits of a query at a cell.
 * @returns {any} {names, rows: [{terms, sum, weight}] of each head}, a text why not, or null: later
 */
const ledgerAt = (row, cell) => {
  const { ledger, no_ledger: why, heads } = picture.facts;
  if (!ledger) return why;
  const place = ledger.queries.indexOf(picture.facts.queries[row]);
  if (place < 0) return `To keep the page small it has terms of ${ledger.queries.length} queries alone, not of this one.`;
  const steps = ledger.steps[state.layer];
  const names = Object.keys(steps);
  const parts = names.map((n) => picture.array(`terms/${state.layer}/${n}`, () => redraw('list')));
  const maps = shownMaps(SUM, 'combine');
  if (parts.includes(null) || !maps) return null;
  const rows = [...Array(heads).keys()].map((m) => {
    const at = (place * heads + m) * maps.cells + cell;
    const terms = parts.map((codes, k) => (codes[at] - 128) * steps[names[k]][m]);
    const sum = terms.reduce((a, b) => a + b, 0);
    return { terms, sum, weight: weightAt(maps, row, m, cell) };
  });
  return { names, rows, step: Math.max(...Object.values(steps).flat()) };
};

/** Tones 0..255 of weights relative to an even spread, as figures have it. */
const evenTone = (r) => {
  const t = Math.log(Math.min(Math.max(r, 1), 256)) / Math.log(256);
  return 1 - (1 - t) ** 1.6;
};
