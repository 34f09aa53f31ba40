/** Random damage to bytes, the same for the same seed on every machine. */

const INTERESTING = [0, 1, 0x1f, 0x20, 0x2f, 0x30, 0x37, 0x7f, 0x80, 0xff];

/** @param {number} seed any integer */
export class Mutator {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  /** An integer in [0, limit): mulberry32. */
  below(limit) {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  }

  pick(list) {
    return list[this.below(list.length)];
  }

  /** A copy of `data` with one to eight changes; `others` are what pieces are taken from. */
  mutate(data, others) {
    let result = Buffer.from(data);
    for (let left = 1 + this.below(8); left > 0; left--) result = this.#change(result, others);
    return result;
  }

  #change(data, others) {
    if (data.length === 0) return Buffer.from(this.pick(others));
    const at = this.#place(data.length);
    const length = Math.min(data.length - at, 1 + this.below(this.below(4) === 0 ? 2048 : 16));
    switch (this.below(9)) {
      case 0:
        data[at] ^= 1 << this.below(8);
        return data;
      case 1:
        data[at] = this.pick(INTERESTING);
        return data;
      case 2:
        data[at] = this.below(256);
        return data;
      case 3:
        return Buffer.concat([data.subarray(0, at), data.subarray(at + length)]);
      case 4:
        return Buffer.concat([data.subarray(0, at + length), data.subarray(at)]);
      case 5:
        data.fill(this.pick(INTERESTING), at, at + length);
        return data;
      case 6: {
        const other = this.pick(others);
        const from = this.#place(other.length);
        return Buffer.concat([
          data.subarray(0, at),
          other.subarray(from, from + length),
          data.subarray(at),
        ]);
      }
      case 7:
        data.copyWithin(at, this.#place(data.length), data.length);
        return data;
      default:
        return data.subarray(0, this.below(8) === 0 ? at : data.length);
    }
  }

  /** Half of the time within the first bytes, where headers are. */
  #place(length) {
    return this.below(2) === 0 ? this.below(Math.min(length, 1024)) : this.below(length);
  }
}
