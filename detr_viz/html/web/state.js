// What is shown, as one object; it stands in the address of the page, so that a view can be shared.

const SUM = 'sum';
/** @type {Picture|null} */
let picture = null;
const opened = new Map(); // number of an image -> Promise<Picture>

const state = {
  image: 0, // number in the page
  query: 0, // id
  mode: 'combine',
  layer: 0,
  head: 'mean', // a number, "mean" or "max"
  level: SUM, // or the number of a level, as text
  norm: 'even',
  draw: 'map', // or "points", "cells"
  ground: 'pale',
  ramp: 'ember',
  least: 0.5, // boxes with lower scores are not drawn
  at: null, // the point that stays, [x, y] as shares of the photo
  hover: null, // the point under the pointer
  hot: null, // the query whose box is under the pointer
};

/** Parts of the page that must be drawn again, and whether a frame is waiting. */
const dirty = new Set();
let waitingFrame = false;

/** @param {...string} parts "base", "heads", "marks", "list", "all" */
const redraw = (...parts) => {
  parts.forEach((part) => dirty.add(part));
  if (!waitingFrame) {
    waitingFrame = true;
    requestAnimationFrame(() => { waitingFrame = false; render(); });
  }
};

const LIGHT = new Set(['hover', 'hot', 'at', 'least']); // change no map

/** Change the state, and what shows it. @param {Partial<typeof state>} changes */
const set = (changes) => {
  let any = false;
  let heavy = false;
  for (const [name, value] of Object.entries(changes)) {
    if (state[name] === value) continue;
    state[name] = value;
    any = true;
    heavy ||= !LIGHT.has(name);
    if (name === 'hot' || name === 'least' || name === 'at') dirty.add('marks');
  }
  if (!any) return;
  if (heavy) redraw('all');
  else redraw('list');
  if (!('hover' in changes) && !('hot' in changes)) writeHash();
};

/** The point that lists and tables are about. @returns {number[]|null} */
const point = () => state.at || state.hover;

const NAMES = ['image', 'query', 'mode', 'layer', 'head', 'level', 'norm', 'draw', 'ground', 'ramp'];
let hashTimer = 0;

/** @returns {string} the state as the end of an address */
const hashOf = () => {
  const parts = NAMES.map((name) => `${name}=${encodeURIComponent(state[name])}`);
  parts.push(`boxes=${state.least}`);
  if (state.at) parts.push(`at=${state.at.map((x) => x.toFixed(4)).join(',')}`);
  return `#${parts.join('&')}`;
};

/** Browsers refuse many changes a second; a page in a frame may have no address at all. */
const writeHash = () => {
  clearTimeout(hashTimer);
  hashTimer = setTimeout(() => {
    try { history.replaceState(null, '', hashOf()); } catch { /* shown in a frame */ }
  }, 120);
};

/** @returns {Record<string, any>} what the address says; what it cannot mean is left out */
const fromHash = () => {
  const said = {};
  for (const part of location.hash.slice(1).split('&')) {
    const [name, text = ''] = part.split('=');
    let value = '';
    try { value = decodeURIComponent(text); } catch { continue; }
    const number = Number(value);
    if (['image', 'query', 'layer'].includes(name) && /^\d+$/.test(value)) said[name] = number;
    else if (name === 'head') said.head = /^\d+$/.test(value) ? number : value;
    else if (name === 'boxes' && number >= 0 && number <= 1) said.least = number;
    else if (name === 'at') {
      const at = value.split(',').map(Number);
      if (at.length === 2 && at.every((x) => x >= 0 && x <= 1)) said.at = at;
    } else if (NAMES.includes(name)) said[name] = value;
  }
  return said;
};

/** A value if it is one of the choices, else the usual one. */
const oneOf = (value, choices, usual) => (choices.includes(value) ? value : usual);

/** The state for a picture: wishes that it can fulfil, else its own start. */
const settled = (facts, wish) => {
  const last = facts.layers[facts.layers.length - 1];
  const layer = oneOf(wish.layer, facts.layers, last);
  const levels = facts.grids[layer].map((_, i) => String(i));
  const heads = facts.stages ? ['mean'] : [...Array(facts.heads).keys(), 'mean', 'max'];
  const draws = ['map', ...(facts.samples ? ['points'] : []), ...(facts.cells ? ['cells'] : [])];
  return {
    query: oneOf(wish.query, facts.queries, facts.start),
    mode: oneOf(wish.mode, facts.modes, facts.mode),
    layer,
    head: oneOf(wish.head, heads, 'mean'),
    level: oneOf(wish.level, levels.length > 1 ? [SUM, ...levels] : [SUM], SUM),
    norm: oneOf(wish.norm, ['even', 'head', 'query'], 'even'),
    draw: oneOf(wish.draw, draws, 'map'),
    ground: oneOf(wish.ground, ['pale', 'photo'], 'pale'),
    ramp: oneOf(wish.ramp, Object.keys(ramps).filter((n) => n !== 'signed'), Object.keys(ramps)[0]),
    at: wish.at || null,
    least: wish.least ?? usualLeast(facts),
    hover: null,
    hot: null,
  };
};

/** Boxes are drawn from this score: .5, or lower where that leaves fewer than three. */
const usualLeast = (facts) => {
  const scores = [...facts.outputs[facts.layers[facts.layers.length - 1]].scores];
  const third = scores.sort((a, b) => b - a)[2] ?? 0;
  return Math.max(Math.min(0.5, Math.floor(third * 20) / 20), 0);
};
