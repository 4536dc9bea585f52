// The words of the page: the query shown, the list at a point, the ledger, missed objects, the index.

const SHORT_LIST = 8;
let wholeList = false;

/** Say something to a screen reader. */
const tell = (text) => { $('status').textContent = text; };

/** Write a text where it differs: a hovering pointer changes few of them. */
const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };

/** An element with a class and a text. */
const made = (tag, name = '', text = '') => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text) node.textContent = text;
  return node;
};

const KINDS = {
  found: 'found',
  'bad-box': 'bad box',
  'wrong-class': 'wrong class',
  duplicate: 'duplicate',
  background: 'background',
  both: 'wrong class and box',
};

/** What became of a query: a verdict, or "". */
const verdictOf = (row) => {
  const kind = picture.facts.truth && picture.facts.truth.kinds[row];
  return kind ? KINDS[kind] || kind : '';
};

const percent = (x) => {
  const digits = x >= 0.0995 ? 0 : x >= 0.00995 || x < 5e-6 ? 1 : 2;
  return `${(x * 100).toFixed(digits)} %`;
};
const times = (r) => `×${r >= 9.95 ? Math.round(r) : r.toFixed(1)}`;

/** One line about the view, for the page and for saved pictures. */
const captionText = () => {
  const { facts } = picture;
  const row = rowOf();
  const parts = [facts.model.title];
  parts.push(`${facts.layer_noun} ${state.layer}`);
  parts.push(`query ${state.query}: ${labelOf(row)} ${scoreText(facts.outputs[state.layer].scores[row])}`);
  parts.push(`${state.mode}, ${facts.formulas[state.layer][state.mode]}`);
  if (!facts.stages) parts.push(headWords(state.head));
  if (state.level !== SUM) parts.push(levelWords(Number(state.level)));
  return parts.join(' · ');
};

const levelWords = (i) => picture.facts.grids[state.layer][i].name || `level ${i}`;

// ---- the query ------------------------------------------------------------------------------------

const showQuery = () => {
  const { facts } = picture;
  const row = rowOf();
  const output = facts.outputs[state.layer];
  write($('query-title'), `Query ${state.query}`);
  write($('query-class'), `${labelOf(row)} ${scoreText(output.scores[row])}`);
  const [x0, y0, x1, y1] = output.boxes[row].map(Math.round);
  const rows = [['Box', `${x1 - x0} × ${y1 - y0} px`]];
  const verdict = verdictOf(row);
  if (verdict) {
    const object = facts.truth.objects[row];
    const of = object >= 0 ? `: ${facts.truth.names[object]}` : '';
    rows.push(['Against the truth', verdict + of]);
  }
  const maps = shownMaps();
  if (maps) {
    const values = mapValues(maps, row, state.head);
    const peak = values[peakOf(values)];
    const mass = massIn(maps.grid, sharesOf(output.boxes[row]));
    if (state.head !== 'max') rows.push(['Attention in its box', percent(mass(values))]);
    rows.push(['Largest weight of a cell', `${percent(peak)}, ${times(peak * maps.cells)} even`]);
  }
  $('query-facts').replaceChildren(...rows.flatMap(([name, text]) => [made('dt', '', name),
    made('dd', '', text)]));
};

// ---- the list -------------------------------------------------------------------------------------

/** Rows of the list are made once, then only their texts change. */
const listRow = (i) => {
  const list = $('list');
  while (list.children.length <= i) {
    const item = made('li');
    const button = made('button', 'row');
    button.type = 'button';
    button.append(made('span', 'fill'), made('span', 'id'), made('span', 'class'),
      made('span', 'score'), made('span', 'verdict'), made('span', 'value'));
    button.addEventListener('click', () => choose(Number(button.dataset.query)));
    item.append(button);
    list.append(item);
  }
  return list.children[i];
};

const showList = () => {
  const { facts } = picture;
  const at = point();
  const maps = at && shownMaps();
  const { scores } = facts.outputs[state.layer];
  const ranked = maps ? rankedAt(maps, at)
    : facts.queries.map((query, row) => ({ query, row, weight: scores[row] }));
  if (!maps) ranked.sort((a, b) => b.weight - a.weight || a.row - b.row);
  const count = wholeList ? ranked.length : Math.min(SHORT_LIST, ranked.length);
  const most = Math.max(ranked[0].weight, 1e-9);
  for (let i = 0; i < count; i += 1) {
    const { query, row, weight } = ranked[i];
    const item = listRow(i);
    item.hidden = false;
    const button = item.firstChild;
    const [fill, id, name, score, verdict, value] = button.children;
    button.dataset.query = query;
    button.setAttribute('aria-pressed', String(query === state.query));
    fill.style.transform = `scaleX(${Math.min(weight / most, 1).toFixed(3)})`;
    write(id, String(query));
    write(name, labelOf(row));
    write(score, scoreText(scores[row]));
    write(verdict, verdictOf(row));
    write(value, maps ? `${times(weight * maps.cells)}` : '');
    button.title = maps ? `${percent(weight)} of its attention in this cell` : '';
  }
  [...$('list').children].slice(count).forEach((item) => { item.hidden = true; });
  $('more').hidden = ranked.length <= SHORT_LIST;
  write($('more'), wholeList ? `Best ${SHORT_LIST}` : `All ${ranked.length}`);
  write($('here-title'), at ? 'Queries that look here' : 'Queries by score');
  write($('here-note'), noteOf(at, maps));
  $('release').hidden = !state.at;
};

/** What the list is about, in a sentence. */
const noteOf = (at, maps) => {
  const { facts } = picture;
  const [height, width] = facts.image.hw;
  const few = facts.queries.length < facts.num_queries
    ? ` Of ${facts.num_queries} queries, the page has ${facts.queries.length}.` : '';
  if (!at || !maps) return `Point at the photo: which queries look there?${few}`;
  const where = `${Math.round(at[0] * width)}, ${Math.round(at[1] * height)} px`;
  return `At ${where}; ×1 is an even spread.${few}`;
};

// ---- the ledger -----------------------------------------------------------------------------------

const TERM = { cq: ['c', 'q'], pq: ['p', 'q'], ck: ['c', 'k'], pk: ['p', 'k'] };

/** c_q · c_k with its subscripts. */
const termNodes = (name) => name.split('.').flatMap((part, i) => {
  const [letter, side] = TERM[part];
  return [...(i ? [' · '] : []), made('i', '', letter), made('sub', '', side)];
});

/** A number with its sign; a coarse one has one decimal. */
const signed = (x, step) => {
  const digits = step > 0.15 ? 1 : 2;
  const text = Math.abs(x).toFixed(digits);
  return Number(text) ? `${x < 0 ? '−' : '+'}${text}` : text;
};
let ledgerShape = '';

const showLedger = () => {
  const { facts } = picture;
  $('ledger').hidden = !facts.ledger && !facts.no_ledger;
  const row = rowOf();
  const maps = shownMaps(SUM, 'combine');
  if (!maps) return;
  const at = point();
  const cell = at ? cellAt(maps.grid, at) : peakOf(mapValues(maps, row, state.head));
  const found = ledgerAt(row, cell);
  if (found === null) return;
  $('ledger-scroll').hidden = typeof found === 'string';
  if (typeof found === 'string') {
    write($('ledger-note'), `${found.slice(0, 1).toUpperCase()}${found.slice(1)}`.replace(/\.?$/, '.'));
    return;
  }
  const where = at ? 'at the point' : 'at its peak';
  write($('ledger-note'), `Added to the logits of query ${state.query} ${where}, above the mean.`);
  const shape = `${found.names} ${found.rows.length}`;
  if (shape !== ledgerShape) makeLedger(found);
  ledgerShape = shape;
  const most = Math.max(...found.rows.flatMap((r) => r.terms.map(Math.abs)), 1);
  [...$('ledger-table').tBodies[0].rows].forEach((line, m) => {
    const { terms, sum, weight } = found.rows[m];
    line.className = state.head === m ? 'own' : '';
    const texts = [...terms, sum].map((x) => signed(x, found.step)).concat(percent(weight));
    texts.forEach((text, k) => {
      const cellNode = line.cells[k + 1];
      write(cellNode, text);
      if (k < terms.length) tint(cellNode, terms[k] / most);
    });
  });
};

/** The ground of a number: orange adds, blue takes away; the sign is in the text as well. */
const tint = (node, x) => {
  const strong = Math.round(Math.min(Math.abs(x), 1) * 34);
  node.style.backgroundColor = strong < 2 ? 'transparent'
    : `color-mix(in srgb, var(${x > 0 ? '--adds' : '--takes'}) ${strong}%, transparent)`;
};

const makeLedger = (found) => {
  const head = made('thead');
  const line = made('tr');
  const columns = [made('th', '', 'head'), ...found.names.map((name) => {
    const node = made('th');
    node.append(...termNodes(name));
    return node;
  }), made('th', '', 'sum'), made('th', '', 'weight')];
  columns.forEach((node) => node.setAttribute('scope', 'col'));
  line.append(...columns);
  head.append(line);
  const body = made('tbody');
  found.rows.forEach((_, m) => {
    const row = made('tr');
    const name = made('th', '', String(m));
    name.setAttribute('scope', 'row');
    row.append(name, ...[...found.names, 'sum', 'weight'].map(() => made('td')));
    body.append(row);
  });
  const caption = made('caption', 'unseen', 'Terms of the logits of each head');
  $('ledger-table').replaceChildren(caption, head, body);
};

// ---- what was missed ------------------------------------------------------------------------------

/** The query with most of its attention in an object's box, and how much. */
const lookingAt = (object) => {
  const maps = shownMaps();
  if (!maps) return null;
  const mass = massIn(maps.grid, sharesOf(picture.facts.truth.boxes[object]));
  let best = null;
  picture.facts.queries.forEach((query, row) => {
    const share = mass(mapValues(maps, row, state.head));
    if (!best || share > best.share) best = { query, share };
  });
  return best;
};

const makeMissed = () => {
  const { truth } = picture.facts;
  $('missed').hidden = !truth;
  $('list').classList.toggle('judged', Boolean(truth));
  if (!truth) return;
  write($('missed-title'), truth.missed.length ? `Missed objects: ${truth.missed.length}` : 'No object is missed');
  $('missed-list').replaceChildren(...truth.missed.map((object, i) => {
    const item = made('li');
    const button = made('button', 'row');
    button.type = 'button';
    const [x0, y0, x1, y1] = truth.boxes[object].map(Math.round);
    const size = `${x1 - x0} × ${y1 - y0} px`;
    const unknown = truth.known[object] ? '' : ', no class of this model';
    button.append(made('span', 'class', truth.names[object]), made('span', 'value', size + unknown));
    if (truth.why[i]) button.append(made('span', 'why', truth.why[i]));
    button.addEventListener('click', () => visitMissed(object));
    item.append(button);
    return item;
  }));
};

/** Show the query that looks most at a missed object, and put the point into it. */
const visitMissed = (object) => {
  const best = lookingAt(object);
  if (!best) return;
  const [x0, y0, x1, y1] = sharesOf(picture.facts.truth.boxes[object]);
  set({ query: best.query, at: [(x0 + x1) / 2, (y0 + y1) / 2] });
  tell(`Query ${best.query} has most of its attention on the missed ${picture.facts.truth.names[object]}: ${percent(best.share)}.`);
};
