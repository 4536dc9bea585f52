// Mouse, pen and touch over the photo.

const LONG_PRESS_MS = 450;
const SAME_PX = 7; // a second click so near the point frees it

/** Where an event is, as shares of the photo. @returns {number[]} */
const placeOf = (event) => {
  const box = $('marks').getBoundingClientRect();
  const share = (x, low, size) => Math.min(Math.max((x - low) / size, 0), 1);
  return [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
};

/** The query of the smallest drawn box that a point lies in, or null. */
const boxAt = ([x, y]) => {
  const { boxes } = picture.facts.outputs[state.layer];
  let best = null;
  for (const row of drawnRows()) {
    const [x0, y0, x1, y1] = sharesOf(boxes[row]);
    const area = (x1 - x0) * (y1 - y0);
    if (x0 <= x && x <= x1 && y0 <= y && y <= y1 && (!best || area < best.area)) {
      best = { area, query: picture.facts.queries[row] };
    }
  }
  return best && best.query;
};

const isNear = (a, b) => {
  const away = Math.hypot((a[0] - b[0]) * shown.width, (a[1] - b[1]) * shown.height);
  return away < SAME_PX;
};

/** A click, or a tap. alone: the point without the box under it */
const pick = (at, alone) => {
  const query = alone ? null : boxAt(at);
  if (state.at && isNear(state.at, at)) set({ at: null });
  else set({ at, ...(query === null ? {} : { query }) });
  const top = shownMaps() && rankedAt(shownMaps(), at)[0];
  if (top) tell(`Query ${top.query} looks here most.`);
};

const listenToPointer = () => {
  const marks = $('marks');
  let timer = 0;
  let pressed = null; // of a touch: {at, x, y, long}
  marks.addEventListener('pointermove', (event) => {
    const at = placeOf(event);
    if (event.pointerType === 'touch') {
      if (pressed && pressed.long) set({ at });
      else if (pressed && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) > 10) {
        clearTimeout(timer); // the page is scrolled
        pressed = null;
      }
      return;
    }
    set({ hover: at, hot: boxAt(at) });
  });
  marks.addEventListener('pointerleave', () => set({ hover: null, hot: null }));
  marks.addEventListener('pointerdown', (event) => {
    if (event.pointerType !== 'touch') return;
    pressed = { at: placeOf(event), x: event.clientX, y: event.clientY, long: false };
    timer = setTimeout(() => {
      if (!pressed) return;
      pressed.long = true;
      set({ at: pressed.at });
    }, LONG_PRESS_MS);
  });
  marks.addEventListener('pointerup', () => clearTimeout(timer));
  marks.addEventListener('pointercancel', () => { clearTimeout(timer); pressed = null; });
  marks.addEventListener('contextmenu', (event) => { if (pressed) event.preventDefault(); });
  marks.addEventListener('touchmove', (event) => {
    if (pressed && pressed.long) event.preventDefault();
  }, { passive: false });
  marks.addEventListener('click', (event) => {
    const wasLong = pressed && pressed.long;
    pressed = null;
    if (!wasLong) pick(placeOf(event), event.shiftKey);
  });
};
