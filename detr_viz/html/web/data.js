// The data of the page: JSON in the document, arrays in base64 that are unpacked when needed.

/** The element of an id. @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** @param {string} id @returns {any} the JSON of a data element */
const jsonOf = (id) => JSON.parse($(id).textContent);

/** @param {string} text base64 @returns {Uint8Array} */
const bytesOf = (text) => {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  return bytes;
};

/** @param {Uint8Array} bytes deflated, without a header @returns {Promise<ArrayBuffer>} */
const inflated = (bytes) => {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
  return new Response(stream).arrayBuffer();
};

/**
 * Add up the differences of rows or columns, in place: the inverse of the filter.
 * @param {Uint8Array} codes (..., h, w)  @param {string} filter  @param {number[]} shape
 */
const undoFilter = (codes, filter, shape) => {
  const w = shape[shape.length - 1];
  const size = w * shape[shape.length - 2];
  if (filter === 'left') {
    for (let i = 0; i < codes.length; i += 1) if (i % w) codes[i] += codes[i - 1];
  } else if (filter === 'up') {
    for (let i = 0; i < codes.length; i += 1) if (i % size >= w) codes[i] += codes[i - w];
  }
};

/** One explained image: its facts, and its arrays once they are unpacked. */
class Picture {
  /** @param {number} number of the image in the page */
  constructor(number) {
    this.number = number;
    this.facts = jsonOf(`image-${number}`);
    this.arrays = new Map(); // name -> typed array
    this.waiting = new Map(); // name -> promise
    this.index = new Map(this.facts.queries.map((q, i) => [q, i])); // query -> row of the arrays
  }

  /** Resolves when the photo can be drawn. */
  async open() {
    this.photo = new Image();
    this.photo.src = this.facts.photo;
    await this.photo.decode();
    return this;
  }

  /** @returns {any} the array, or null while it is being unpacked; `then` runs when it is there */
  array(name, then) {
    const known = this.arrays.get(name);
    if (known || !this.has(name)) return known || null;
    this.load(name).then(then);
    return null;
  }

  has(name) { return name in this.facts.blocks; }

  /** @param {string} name @returns {Promise<any>} */
  load(name) {
    if (!this.waiting.has(name)) {
      const [filter, shape, text] = this.facts.blocks[name];
      this.waiting.set(name, inflated(bytesOf(text)).then((buffer) => {
        const wide = name.startsWith('samples/');
        const array = wide ? new Uint16Array(buffer) : new Uint8Array(buffer);
        if (!wide) undoFilter(array, filter, shape);
        this.arrays.set(name, array);
        return array;
      }));
    }
    return this.waiting.get(name);
  }

  /** @param {string} name @returns {number[]} */
  shape(name) { return this.facts.blocks[name][1]; }
}

const common = jsonOf('common');
/** name of a colour map -> RGBA of 256 tones, the last its opacity */
const ramps = Object.fromEntries(
  Object.entries(common.ramps).map(([name, text]) => [name, bytesOf(text)]),
);
