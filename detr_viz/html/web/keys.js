// The keyboard.

/** Queries in the order of the score at the layer shown. @returns {number[]} */
const byScore = () => {
  const { facts } = picture;
  const { scores } = facts.outputs[state.layer];
  return facts.queries.map((query, row) => [query, scores[row], row])
    .sort((a, b) => b[1] - a[1] || a[2] - b[2]).map(([query]) => query);
};

/** The next of some values, around the end. */
const next = (values, value, step = 1) => {
  const at = values.indexOf(value);
  return values[(at + step + values.length) % values.length];
};

/** Show a query. */
const choose = (query) => {
  set({ query });
  const row = rowOf();
  tell(`Query ${query}: ${labelOf(row)} ${scoreText(picture.facts.outputs[state.layer].scores[row])}. ${verdictOf(row)}`);
};

/** Move the point by cells of the map; without a point it starts at the peak. */
const movePoint = (dx, dy) => {
  const maps = shownMaps();
  if (!maps) return;
  const { grid } = maps;
  const [, , width, height] = grid.rect;
  const start = state.at || middleOf(grid, peakOf(mapValues(maps, rowOf(), state.head)));
  const at = [start[0] + dx * width, start[1] + dy * height]
    .map((x) => Math.min(Math.max(x, 0), 1));
  set({ at });
  const [top] = rankedAt(maps, at);
  tell(`Query ${top.query} looks here most: ${labelOf(top.row)}, ${times(top.weight * maps.cells)}.`);
};

const cycle = (name, values) => {
  if (values.length < 2) return;
  set({ [name]: next(values, state[name]) });
  tell(`${name}: ${state[name]}`);
};

const levelChoices = () => {
  const grids = picture.facts.grids[state.layer];
  return grids.length > 1 ? [SUM, ...grids.map((_, i) => String(i))] : [SUM];
};

const drawChoices = () => ['map', ...(picture.facts.samples ? ['points'] : []),
  ...(picture.facts.cells ? ['cells'] : [])];

const goToLayer = (step) => {
  const { layers } = picture.facts;
  const at = Math.min(Math.max(layers.indexOf(state.layer) + step, 0), layers.length - 1);
  set({ layer: layers[at] });
  tell(`${picture.facts.layer_noun} ${layers[at]}`);
};

const nextMissed = () => {
  const { truth } = picture.facts;
  if (!truth || !truth.missed.length) return;
  nextMissed.at = ((nextMissed.at ?? -1) + 1) % truth.missed.length;
  visitMissed(truth.missed[nextMissed.at]);
};

/** [keys, what stands in the help, what they do]; a text is a key of KeyboardEvent. */
const KEYS = [
  [['ArrowRight', 'ArrowDown'], '→ ↓', 'next query by score', () => choose(next(byScore(), state.query))],
  [['ArrowLeft', 'ArrowUp'], '← ↑', 'query before', () => choose(next(byScore(), state.query, -1))],
  [[], '0 to 9', 'that head', null],
  [[], 'Shift and arrows', 'move the point by a cell', null],
  [['a'], 'a', 'mean of the heads', () => cycleHead('mean')],
  [['x'], 'x', 'maximum of the heads', () => cycleHead('max')],
  [['m'], 'm', 'next mode', () => cycle('mode', picture.facts.modes)],
  [['['], '[', 'layer before', () => goToLayer(-1)],
  [[']'], ']', 'next layer', () => goToLayer(1)],
  [['l'], 'l', 'next level', () => cycle('level', levelChoices())],
  [['s'], 's', 'next scale', () => cycle('norm', ['even', 'head', 'query'])],
  [['d'], 'd', 'map, points or cells', () => cycle('draw', drawChoices())],
  [['g'], 'g', 'photo pale or in colour', () => cycle('ground', ['pale', 'photo'])],
  [['n'], 'n', 'next missed object', nextMissed],
  [['i'], 'i', 'next image', () => goToImage(next([...common.images.keys()], state.image))],
  [['c'], 'c', 'the command for print', () => openCommand()],
  [['e'], 'e', 'save the view as PNG', () => saveView()],
  [['t'], 't', 'dark or light', () => switchTheme()],
  [['Escape'], 'Esc', 'free the point', () => set({ at: null })],
  [['?'], '?', 'this help', () => $('help').showModal()],
];
const ACTIONS = new Map(KEYS.flatMap(([keys, , , action]) => keys.map((key) => [key, action])));
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const cycleHead = (head) => {
  if (picture.facts.stages) return;
  set({ head });
  tell(headWords(head));
};

const onKey = (event) => {
  if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector('dialog[open]')) return;
  const where = event.target;
  const typed = where.closest && where.closest('select, input[type=range]');
  if (typed && event.key !== 'Escape') return;
  const arrow = ARROWS[event.key];
  // arrows scroll the table, and choose among radio buttons
  if (arrow && where.closest && where.closest('input[type=radio], #ledger-scroll')) return;
  if (arrow && event.shiftKey) movePoint(...arrow);
  else if (/^\d$/.test(event.key)) {
    if (Number(event.key) >= picture.facts.heads || picture.facts.stages) return;
    cycleHead(Number(event.key));
  } else if (ACTIONS.has(event.key)) ACTIONS.get(event.key)();
  else return;
  event.preventDefault();
};

const makeHelp = () => {
  $('help-table').tBodies[0].replaceChildren(...KEYS.map(([, keys, words]) => {
    const line = made('tr');
    const key = made('td');
    key.append(made('kbd', '', keys));
    line.append(key, made('td', '', words));
    return line;
  }));
};
