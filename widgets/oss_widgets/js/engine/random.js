/**
 * Random numbers from a seed: sfc32, the 32-bit "small fast counting" generator of PractRand.
 *
 * The Python sampler uses NumPy's PCG64, whose 128-bit arithmetic is slow in JavaScript.
 */

import { LabError } from "../errors.js";

/** One stream of random numbers. The same seed gives the same stream on every machine. */
export class RandomStream {
  /** @param {number | null} seed  a whole number of 0 or more; null takes a random one */
  constructor(seed = null) {
    const number = seed ?? Math.floor(Math.random() * 2 ** 53);
    if (!(Number.isSafeInteger(number) && number >= 0)) {
      throw new LabError(`seed is ${seed}; it must be 0 to 2^53-1`);
    }
    this.state = new Uint32Array([0, number, number / 2 ** 32, 1]);
    for (let round = 0; round < 12; round++) this.next();
  }

  /** A stream that continues with the same numbers. */
  fork() {
    const copy = new RandomStream(0);
    copy.state.set(this.state);
    return copy;
  }

  /** The next random number, from 0 up to but not including 1, with 53 bits. */
  uniform() {
    const high = this.next() >>> 5;
    return (high * 2 ** 26 + (this.next() >>> 6)) / 2 ** 53;
  }

  /** The next 32 random bits. */
  next() {
    const [a, b, c, counter] = this.state;
    const result = (a + b + counter) >>> 0;
    this.state.set([b ^ (b >>> 9), c + (c << 3), ((c << 21) | (c >>> 11)) + result, counter + 1]);
    return result;
  }
}
