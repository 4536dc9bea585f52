// The line that draws what the page shows as a figure for print.

/** A word as a shell reads it. @param {string} word */
const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

/** A flag and its value, in one word where the value looks like a flag. */
const flag = (name, value) => (value.startsWith('-') ? [`${name}=${value}`] : [name, value]);

/** @returns {string[]} the words of the command */
const commandWords = () => {
  const { facts } = picture;
  const words = [...common.program, ...(facts.words || ['--weights', 'WEIGHTS']), ...facts.run_words];
  words.push(...flag('--image', facts.image.path === null ? 'IMAGE' : facts.image.path));
  words.push('--plot', state.mode, '--queries', String(state.query), '--layer', String(state.layer));
  if (facts.scale !== 'mode') words.push('--scale', facts.scale);
  if (!facts.stages) words.push('--heads', String(state.head));
  if (state.level !== SUM) words.push('--level', state.level);
  const points = state.draw === 'points' && typeof state.head === 'number';
  if (state.draw === 'cells') words.push('--style', 'cells');
  else if (points) words.push('--style', 'points');
  else if (state.draw === 'points') {
    words.splice(words.indexOf('--heads'), 2, '--heads', 'all-in-one');
  } else {
    words.push('--style', 'overlay');
    if (state.norm !== 'even') words.push('--norm', state.norm);
    if (state.ramp !== Object.keys(ramps)[0]) words.push('--cmap', state.ramp);
  }
  return words;
};

/** @returns {string} the command, quoted for a shell */
const commandText = () => commandWords().map(quoted).join(' ');

/** Copy a text; where a page may not, it is selected. @returns {Promise<boolean>} */
const copyText = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const range = document.createRange();
    range.selectNodeContents($('command-text'));
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand('copy');
  }
};

/** What the reader must fill in, a sentence; "" for nothing. */
const commandNote = () => {
  const { facts } = picture;
  const gaps = [];
  if (facts.words === null) gaps.push('WEIGHTS by the file of the model');
  if (facts.image.path === null) gaps.push('IMAGE by the file of the image');
  return gaps.length ? `Replace ${gaps.join(', and ')}: Python gave it without one.` : '';
};

const openCommand = () => {
  $('command-note').textContent = commandNote();
  $('command-text').textContent = commandText();
  $('copy').textContent = 'Copy';
  $('command').showModal();
};

const copyCommand = async () => {
  const done = await copyText(commandText());
  $('copy').textContent = done ? 'Copied' : 'Press Ctrl+C';
  tell(done ? 'The command is copied.' : 'The command is selected: press Ctrl+C.');
};
