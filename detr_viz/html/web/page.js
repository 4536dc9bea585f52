// Start, controls, and the one place that draws.

/** Fill a select. @param {[string, string][]} choices value and words */
const fill = (id, choices, value) => {
  $(id).replaceChildren(...choices.map(([name, words]) => {
    const option = made('option', '', words);
    option.value = name;
    return option;
  }));
  $(id).value = value;
};

const DRAWS = { map: 'map', points: 'sampling points', cells: 'cells of the box' };

/** The controls that this picture's model has. */
const makeControls = () => {
  const { facts } = picture;
  $('mode').replaceChildren(...facts.modes.map((mode) => {
    const label = made('label');
    const input = made('input');
    input.type = 'radio';
    input.name = 'mode';
    input.value = mode;
    input.addEventListener('change', () => set({ mode }));
    label.append(input, made('span', '', mode));
    return label;
  }));
  $('mode-field').title = facts.why_undivided;
  write($('layer-word'), facts.layer_noun === 'stage' ? 'Stage' : 'Layer');
  fill('layer', facts.layers.map((n) => [String(n), String(n)]), String(state.layer));
  $('layer-field').hidden = facts.layers.length < 2;
  const levels = levelChoices();
  fill('level', levels.map((v) => [v, v === SUM ? 'sum of all' : levelWords(Number(v))]), state.level);
  $('level-field').hidden = levels.length < 2;
  fill('draw', drawChoices().map((name) => [name, DRAWS[name]]), state.draw);
  $('draw-field').hidden = drawChoices().length < 2;
  fill('ramp', Object.keys(ramps).filter((n) => n !== 'signed').map((n) => [n, n]), state.ramp);
  $('norm').querySelector('[value=head]').textContent = facts.stages ? 'each map' : 'each head';
  $('norm').querySelector('[value=query]').hidden = facts.stages;
};

const syncControls = () => {
  document.querySelectorAll('#mode input').forEach((input) => {
    input.checked = input.value === state.mode;
  });
  for (const name of ['layer', 'level', 'norm', 'draw', 'ground', 'ramp']) $(name).value = String(state[name]);
  $('norm-field').hidden = state.draw !== 'map';
  $('ramp-field').hidden = state.draw !== 'map';
  $('least').value = String(state.least);
  write($('least-value'), state.least.toFixed(2));
};

const showKey = () => {
  $('key').hidden = state.draw === 'points';
  $('level-key').hidden = state.draw !== 'points';
  if (state.draw === 'points') showLevelKey();
  const context = $('key-ramp').getContext('2d');
  const image = context.createImageData(256, 1);
  const ramp = state.draw === 'cells' ? ramps.signed : ramps[state.ramp];
  for (let i = 0; i < 256; i += 1) {
    const share = ramp[4 * i + 3] / 255; // over the grey of the figures' keys
    for (let k = 0; k < 3; k += 1) image.data[4 * i + k] = ramp[4 * i + k] * share + 220 * (1 - share);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  const even = state.norm === 'even';
  const [low, high] = state.draw === 'cells' ? ['takes away', 'adds']
    : even ? ['even spread', '×256'] : ['0', state.norm === 'head' ? 'its largest' : 'largest of the query'];
  write($('key-low'), low);
  write($('key-high'), high);
};

/** The colours of the levels of sampling points. */
const showLevelKey = () => {
  const grids = picture.facts.grids[state.layer];
  $('level-key').replaceChildren(...grids.map((_, i) => {
    const item = made('span');
    const dot = made('span', 'dot');
    dot.style.backgroundColor = LEVEL_COLOURS[i % LEVEL_COLOURS.length];
    item.append(dot, levelWords(i));
    return item;
  }));
};

/** Draw what is dirty; every change comes through here, once a frame. */
const render = () => {
  if (!picture || !picture.photo) return;
  const all = dirty.has('all');
  const marks = all || dirty.has('marks');
  dirty.clear();
  if (all) {
    fitStage();
    drawStage();
    drawHeads();
    syncControls();
    showKey();
    showQuery();
    write($('caption'), captionText());
    const words = `${picture.facts.image.name}: ${captionText()}. Arrow keys change the query, with Shift they move the point; ? shows all keys.`;
    $('marks').setAttribute('aria-label', words);
  }
  if (marks) {
    drawBoxes();
    write($('least-value'), state.least.toFixed(2));
  }
  drawCross();
  showTip();
  showList();
  showLedger();
};

/** The name of the box under the pointer. */
const showTip = () => {
  const row = state.hot === null ? undefined : rowOf(state.hot);
  $('tip').hidden = row === undefined || state.hot === state.query || !state.hover;
  if ($('tip').hidden) return;
  write($('tip'), `query ${state.hot}: click to show it`);
  const [x, y] = state.hover;
  $('tip').style.transform = `translate(${x * shown.width}px, ${y * shown.height}px)`;
};

// ---- images ---------------------------------------------------------------------------------------

const makeIndex = () => {
  const several = common.images.length > 1;
  $('index').hidden = !several;
  document.body.classList.toggle('several', several);
  $('index-list').replaceChildren(...common.images.map((image, i) => {
    const item = made('li');
    const button = made('button');
    button.type = 'button';
    const thumbnail = made('img');
    thumbnail.loading = 'lazy';
    thumbnail.alt = '';
    thumbnail.src = image.thumbnail;
    const words = made('span', 'class', image.name);
    const more = image.missed ? `, ${image.missed} missed` : '';
    button.append(thumbnail, words, made('span', 'quiet', image.model + more));
    button.addEventListener('click', () => goToImage(i));
    item.append(button);
    return item;
  }));
};

/** Show another image. wish: a state to keep as far as the image can */
const goToImage = async (number, wish = {}) => {
  const before = { mode: state.mode, norm: state.norm, ground: state.ground, ramp: state.ramp };
  state.image = number;
  if (!opened.has(number)) opened.set(number, new Picture(number).open());
  let found;
  try {
    found = await opened.get(number);
  } catch (error) {
    trouble(`This image cannot be read: ${error.message}`);
    return;
  }
  if (state.image !== number) return; // another was asked for meanwhile
  picture = found;
  Object.assign(state, settled(picture.facts, { ...before, ...wish }));
  const { facts } = picture;
  write($('title'), facts.image.name);
  write($('subtitle'), `${facts.model.title} · ${facts.model.weights} · ${facts.num_queries} queries`);
  [...$('index-list').children].forEach((item, i) => {
    if (i === number) item.firstChild.setAttribute('aria-current', 'true');
    else item.firstChild.removeAttribute('aria-current');
  });
  makeControls();
  makeHeads();
  makeMissed();
  makeAbout();
  redraw('all');
  writeHash();
  preload();
};

/** Unpack what is likely to be asked for next, one array at a time. */
const preload = async () => {
  const here = picture;
  const ends = [`/${state.layer}/`, `/${state.layer}`];
  for (const name of Object.keys(here.facts.blocks)) {
    if (picture !== here) return;
    const wanted = name.includes(ends[0]) || name.endsWith(ends[1]);
    // other levels of large maps are unpacked when they are asked for
    if (wanted && (!name.startsWith('maps/') || name.endsWith(`/${SUM}`))) await here.load(name);
  }
};

const makeAbout = () => {
  const { facts } = picture;
  const { errors } = facts;
  const rows = [
    ['Made by', `detr_viz ${common.version}`],
    ['Model', `${facts.model.title}, ${facts.model.weights}`],
    ['Queries', facts.queries.length < facts.num_queries
      ? `the best ${facts.queries.length} of ${facts.num_queries}` : `all ${facts.num_queries}`],
    ['Weights', `8 bits on a logarithmic curve; none is off by more than ${errors.weight.toPrecision(2)} (of 1)`],
  ];
  if (facts.ledger) {
    rows.push(['Terms', `of ${facts.ledger.queries.length} queries; off by ${errors.term.toPrecision(2)} at most`]);
  }
  if (facts.scale === 'layer') rows.push(['Scale', "logits at the layer's own scale (--scale layer)"]);
  rows.push(['Boxes', facts.truth ? `blue: queries; dashed: annotated; detections from score ${facts.truth.least}` : 'blue: queries']);
  rows.push(['Network', 'this page needs none, and may not use any']);
  $('about-list').replaceChildren(...rows.flatMap(([name, text]) => [made('dt', '', name), made('dd', '', text)]));
};

// ---- theme ----------------------------------------------------------------------------------------

const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const isDark = () => {
  const { theme } = document.documentElement.dataset;
  return theme === 'dark' || (theme === 'auto' && prefersDark.matches);
};
const syncTheme = () => write($('theme'), isDark() ? 'Light' : 'Dark');
const switchTheme = () => {
  document.documentElement.dataset.theme = isDark() ? 'light' : 'dark';
  syncTheme();
};

// ---- start ----------------------------------------------------------------------------------------

const trouble = (text) => {
  $('trouble').textContent = text;
  $('trouble').hidden = false;
};

const listen = () => {
  for (const name of ['level', 'norm', 'draw', 'ground', 'ramp']) {
    $(name).addEventListener('change', () => set({ [name]: $(name).value }));
  }
  $('layer').addEventListener('change', () => set({ layer: Number($('layer').value) }));
  $('least').addEventListener('input', () => set({ least: Number($('least').value) }));
  $('release').addEventListener('click', () => { set({ at: null }); $('marks').focus(); });
  $('more').addEventListener('click', () => { wholeList = !wholeList; redraw('list'); });
  $('open-command').addEventListener('click', openCommand);
  $('copy').addEventListener('click', copyCommand);
  $('export').addEventListener('click', saveView);
  $('theme').addEventListener('click', switchTheme);
  $('open-help').addEventListener('click', () => $('help').showModal());
  $('open-about').addEventListener('click', () => $('about').showModal());
  document.querySelectorAll('[data-close]').forEach((button) => {
    button.addEventListener('click', () => button.closest('dialog').close());
  });
  document.addEventListener('keydown', onKey);
  window.addEventListener('resize', () => redraw('all'));
  window.addEventListener('hashchange', () => open(fromHash()));
  prefersDark.addEventListener('change', syncTheme);
  listenToPointer();
};

/** Show what an address says. */
const open = (wish) => {
  const number = wish.image < common.images.length ? wish.image : 0;
  return goToImage(number, wish);
};

if (typeof DecompressionStream === 'undefined') {
  trouble('This browser is too old to unpack the maps: it needs DecompressionStream (2023).');
} else {
  makeIndex();
  makeHelp();
  listen();
  syncTheme();
  open(fromHash());
}
