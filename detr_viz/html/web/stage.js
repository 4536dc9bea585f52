// The photo with its map, boxes and marks, at the size of the window; small panels of all heads.

const BLUE = '#0057b8';
const DARK = '#111111';
const grounds = new Map(); // number of an image -> pale ground

const groundOf = () => {
  if (state.ground === 'photo') return picture.photo;
  if (!grounds.has(picture.number)) grounds.set(picture.number, paleGround(picture.photo));
  return grounds.get(picture.number);
};

const rowOf = (query = state.query) => picture.index.get(query);

/** Ground and map, samples or cells, on a canvas of this size. */
const drawBase = (context, width, height, head = state.head) => {
  context.imageSmoothingQuality = 'high';
  context.drawImage(groundOf(), 0, 0, width, height);
  const row = rowOf();
  if (row === undefined) return;
  if (state.draw === 'cells') { putCells(context, row, width, height); return; }
  if (state.draw === 'points') {
    const samples = samplesOf(row, head);
    const heads = typeof head === 'number' ? 1 : picture.facts.heads;
    const unit = Math.sqrt(width * height) * (heads > 1 ? 0.05 : 0.06);
    if (samples) putSamples(context, samples, width, height, unit);
    return;
  }
  const maps = shownMaps();
  if (!maps) return;
  const values = mapValues(maps, row, head);
  putMap(context, maps, values, scaleEnd(maps, row, values), width, height);
};

/** A rectangle with a halo, so that it is seen on any ground. box: shares of the photo */
const putBox = (context, box, width, height, colour, line, dash = []) => {
  const [x, y] = [box[0] * width, box[1] * height];
  const size = [(box[2] - box[0]) * width, (box[3] - box[1]) * height];
  context.setLineDash([]);
  context.strokeStyle = '#ffffff';
  context.lineWidth = line * 2.2;
  context.globalAlpha = 0.75;
  context.strokeRect(x, y, ...size);
  context.globalAlpha = 1;
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = line;
  context.strokeRect(x, y, ...size);
  context.setLineDash([]);
};

/** A text on a plate, at a corner of a box and inside the picture. */
const putWords = (context, text, x, y, width, colour, size, taken = []) => {
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textBaseline = 'middle';
  const wide = context.measureText(text).width + size * 0.8;
  const high = size * 1.5;
  const left = Math.min(Math.max(x, 0), Math.max(width - wide, 0));
  let top = y - high < 0 ? y : y - high;
  const meets = (other) => left < other.right && other.left < left + wide
    && top < other.bottom && other.top < top + high;
  for (let other = taken.find(meets); other; other = taken.find(meets)) top = other.bottom;
  taken.push({ left, right: left + wide, top, bottom: top + high });
  context.fillStyle = colour;
  context.fillRect(left, top, wide, high);
  context.fillStyle = '#ffffff';
  context.fillText(text, left + size * 0.4, top + high / 2 + 0.5);
};

const scoreText = (score) => score.toFixed(2).replace(/^0/, '');

/** Rows of the queries whose boxes are drawn: those with the score, and the one shown. */
const drawnRows = () => {
  const { scores } = picture.facts.outputs[state.layer];
  const own = rowOf();
  return scores.map((score, row) => (score >= state.least || row === own ? row : -1))
    .filter((row) => row >= 0);
};

/** Boxes of queries and of the truth. unit: pixels of the canvas for one of the page */
const drawMarks = (context, width, height, unit) => {
  const output = picture.facts.outputs[state.layer];
  const own = rowOf();
  const hot = state.hot === null ? undefined : rowOf(state.hot);
  const { truth } = picture.facts;
  if (truth) {
    truth.boxes.forEach((box, i) => {
      const missed = truth.missed.includes(i);
      const line = (missed ? 2 : 1.2) * unit;
      putBox(context, sharesOf(box), width, height, DARK, line, [5 * unit, 4 * unit]);
    });
  }
  for (const row of drawnRows()) {
    if (row === own || row === hot) continue;
    putBox(context, sharesOf(output.boxes[row]), width, height, BLUE, 1.1 * unit);
  }
  for (const row of [hot, own]) {
    if (row === undefined || (row === hot && hot === own && row !== own)) continue;
    const box = sharesOf(output.boxes[row]);
    putBox(context, box, width, height, BLUE, (row === own ? 2.6 : 2) * unit);
    const text = `${labelOf(row)} ${scoreText(output.scores[row])}`;
    putWords(context, text, box[0] * width, box[1] * height, width, BLUE, 12 * unit);
  }
  if (truth) {
    const taken = []; // by words about other objects
    truth.missed.forEach((i) => {
      const box = sharesOf(truth.boxes[i]);
      const [x, y] = [box[0] * width, box[3] * height + 18 * unit];
      putWords(context, `missed: ${truth.names[i]}`, x, y, width, DARK, 11 * unit, taken);
    });
  }
  if (own !== undefined && output.references && output.references[own].length === 2) {
    const [x, y] = sharesOf(output.references[own]);
    putPlus(context, x * width, y * height, 6 * unit, unit);
  }
};

/** Where a query refers to. */
const putPlus = (context, x, y, arm, unit) => {
  for (const [colour, line] of [['#ffffff', 3.4], [DARK, 1.4]]) {
    context.strokeStyle = colour;
    context.lineWidth = line * unit;
    context.beginPath();
    context.moveTo(x - arm, y); context.lineTo(x + arm, y);
    context.moveTo(x, y - arm); context.lineTo(x, y + arm);
    context.stroke();
  }
};

/** The class of a query, by its row. */
const labelOf = (row) => picture.facts.classes[picture.facts.outputs[state.layer].labels[row]];

/** Pixels of the photo on the page; kept, since reading it makes the browser lay the page out. */
const shown = { width: 1, height: 1 };

/** Size of the photo on the page, so that it fits beside the rest. */
const fitStage = () => {
  const { naturalWidth: wide, naturalHeight: high } = picture.photo;
  const room = $('stage').clientWidth;
  const most = window.innerWidth < 800 ? window.innerHeight * 0.6 : window.innerHeight - 375;
  const scale = Math.min(room / wide, Math.max(most, 260) / high);
  const [width, height] = [Math.round(wide * scale), Math.round(high * scale)];
  const dots = Math.min(window.devicePixelRatio || 1, 2);
  for (const id of ['base', 'marks']) {
    const canvas = $(id);
    if (canvas.width !== width * dots || canvas.height !== height * dots) {
      canvas.width = width * dots;
      canvas.height = height * dots;
    }
  }
  Object.assign(shown, { width, height });
  $('photo').style.width = `${width}px`;
  $('photo').style.height = `${height}px`;
};

const drawStage = () => {
  const canvas = $('base');
  drawBase(canvas.getContext('2d'), canvas.width, canvas.height);
};

const drawBoxes = () => {
  const canvas = $('marks');
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, canvas.width, canvas.height);
  drawMarks(context, canvas.width, canvas.height, canvas.width / shown.width);
};

/** The mark of a point, which moves without anything being drawn. */
const drawCross = () => {
  const at = point();
  $('cross').hidden = !at;
  if (!at) return;
  $('cross').style.transform = `translate(${at[0] * shown.width}px, ${at[1] * shown.height}px)`;
  $('cross').classList.toggle('stays', Boolean(state.at));
};

// ---- all heads ------------------------------------------------------------------------------------

/** Choices of the heads: mean and max first, then each. */
const headChoices = () => (picture.facts.stages ? [] : ['mean', 'max',
  ...Array(picture.facts.heads).keys()]);

const headWords = (head) => (typeof head === 'number' ? `head ${head}` : `${head} of heads`);

/** Radio buttons with small panels, made once for a picture. */
const makeHeads = () => {
  const holder = $('head-list');
  holder.replaceChildren();
  const choices = headChoices();
  $('heads').hidden = choices.length === 0;
  const { naturalWidth: wide, naturalHeight: high } = picture.photo;
  for (const head of choices) {
    const label = document.createElement('label');
    const input = document.createElement('input');
    input.type = 'radio';
    input.name = 'head';
    input.value = String(head);
    input.addEventListener('change', () => set({ head }));
    const canvas = canvasOf(192, (192 * high) / wide);
    canvas.setAttribute('aria-hidden', 'true');
    const words = document.createElement('span');
    words.textContent = typeof head === 'number' ? headWords(head) : head;
    const share = document.createElement('span');
    share.className = 'share';
    label.append(input, canvas, words, share);
    holder.append(label);
  }
};

let smallGround = null; // of the panels: [key, canvas]

const drawHeads = () => {
  const choices = headChoices();
  if (!choices.length) return;
  const labels = [...$('head-list').children];
  const row = rowOf();
  const maps = shownMaps();
  const { width, height } = labels[0].querySelector('canvas');
  const key = `${picture.number} ${state.ground} ${width}`;
  if (!smallGround || smallGround[0] !== key) {
    const canvas = canvasOf(width, height);
    const context = canvas.getContext('2d');
    context.imageSmoothingQuality = 'high';
    context.drawImage(groundOf(), 0, 0, width, height);
    smallGround = [key, canvas];
  }
  const inside = maps && massIn(maps.grid, sharesOf(picture.facts.outputs[state.layer].boxes[row]));
  choices.forEach((head, i) => {
    const label = labels[i];
    label.querySelector('input').checked = state.head === head;
    const context = label.querySelector('canvas').getContext('2d');
    context.drawImage(smallGround[1], 0, 0);
    const box = sharesOf(picture.facts.outputs[state.layer].boxes[row]);
    if (maps) {
      const values = mapValues(maps, row, head);
      if (state.draw === 'points') {
        putSamples(context, samplesOf(row, head) || [], width, height, width * 0.08);
      } else {
        putMap(context, maps, values, scaleEnd(maps, row, values), width, height);
      }
      const share = head === 'max' ? '' : `${Math.round(inside(values) * 100)} % in box`;
      label.querySelector('.share').textContent = share;
    }
    putBox(context, box, width, height, BLUE, 1.6);
  });
};
