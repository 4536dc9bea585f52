// The present view as a PNG, with a line that says what it shows.

/** @returns {HTMLCanvasElement} the view at the photo's own size, or larger where that is small */
const viewCanvas = () => {
  const { naturalWidth: wide, naturalHeight: high } = picture.photo;
  const scale = Math.max(1, Math.round(1200 / Math.max(wide, high)));
  const [width, height] = [wide * scale, high * scale];
  const size = Math.max(Math.round(width / 60), 14);
  const lines = folded(captionText(), Math.floor(width / (size * 0.56)));
  const canvas = canvasOf(width, height + size * (1.5 * lines.length + 1));
  const context = canvas.getContext('2d');
  context.fillStyle = '#ffffff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  drawBase(context, width, height);
  context.save();
  context.beginPath();
  context.rect(0, 0, width, height);
  context.clip();
  drawMarks(context, width, height, width / 800);
  context.restore();
  context.fillStyle = '#1a1a1a';
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = 'middle';
  lines.forEach((line, i) => context.fillText(line, size / 2, height + size * (1.25 + 1.5 * i)));
  return canvas;
};

/** A text in lines of so many letters. @returns {string[]} */
const folded = (text, most) => {
  const lines = [''];
  for (const word of text.split(' ')) {
    const last = lines.length - 1;
    if (lines[last] && lines[last].length + word.length >= most) lines.push(word);
    else lines[last] = lines[last] ? `${lines[last]} ${word}` : word;
  }
  return lines;
};

/** Save the view as a file of the browser's downloads. */
const saveView = () => {
  viewCanvas().toBlob((blob) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    const stem = picture.facts.image.name.replace(/\.[^.]*$/, '').replace(/[^\w.-]+/g, '_');
    link.download = `${stem}_query${state.query}_${state.mode}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    tell('The view is saved as a PNG.');
  }, 'image/png');
};
