/**
 * nano's tokenizer: text <-> token ids, by byte-pair encoding.
 *
 * A pattern first cuts the text into pieces (words, single digits, punctuation, white space). Each
 * piece starts as bytes. The two neighbors whose join has the lowest rank are then joined, until no
 * join is a token. Special tokens in the text are ordinary text. The vocabulary is a file of lines
 * "base64(token) rank", as in tiktoken.
 */

import { decodeAll } from "./utf8.js";

/** Harmony's special tokens. Their ids follow the ranks, in this order. */
export const HARMONY_SPECIALS = [
  "<|startoftext|>",
  "<|endoftext|>",
  "<|return|>",
  "<|constrain|>",
  "<|channel|>",
  "<|start|>",
  "<|end|>",
  "<|message|>",
  "<|call|>",
];
const VOCAB_SIZE = 640;

// Two differences from the pattern in Python: \s is \p{White_Space}, as in Rust, because
// JavaScript's \s has U+FEFF and lacks U+0085. The case of a contraction is written out, with the
// long s (U+017F), which Rust reads as an s. The browser's version of Unicode decides what a letter
// is: Unicode 17 has letters that tiktoken 0.14.0 does not know, but nano's ids are the same.
const CONTRACTION = "'(?:[sS\\u017f]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])";
const S = "\\p{White_Space}";
const PATTERN = new RegExp(
  [
    CONTRACTION,
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
    "\\p{N}",
    ` ?[^${S}\\p{L}\\p{N}]+[\\r\\n]*`,
    `${S}*[\\r\\n]+`,
    `${S}+(?!\\P{White_Space})`,
    `${S}+`,
  ].join("|"),
  "gu",
);

export class Tokenizer {
  /** @param {string} contents the text of nano.tiktoken */
  constructor(contents) {
    /** @type {Map<string, number>} rank of each token; its bytes are the characters of the key */
    this.ranks = new Map();
    for (const line of contents.split("\n")) {
      const [token, rank] = line.split(" ");
      if (token) this.ranks.set(atob(token), Number(rank));
    }
    const count = this.ranks.size;
    const reserved = VOCAB_SIZE - count - HARMONY_SPECIALS.length;
    const names = [
      ...HARMONY_SPECIALS,
      ...Array.from({ length: reserved }, (_, n) => `<|reserved_${VOCAB_SIZE - reserved + n}|>`),
    ];
    /** @type {Map<number, string>} id -> name of every special token, including reserved ones */
    this.specialNames = new Map(names.map((name, n) => [count + n, name]));
    /** @type {Map<string, number>} */
    this.specialIds = new Map(names.map((name, n) => [name, count + n]));
    /** @type {Uint8Array[]} the bytes of each ordinary token */
    this.bytes = [];
    for (const [key, rank] of this.ranks) {
      this.bytes[rank] = Uint8Array.from(key, (character) => character.charCodeAt(0));
    }
  }

  /** @returns {number[]} the ids of `text` */
  encode(text) {
    const utf8 = new TextEncoder();
    return (text.match(PATTERN) ?? []).flatMap((piece) => this.encodePiece(utf8.encode(piece)));
  }

  /** @param {Uint8Array} bytes one piece of the text */
  encodePiece(bytes) {
    const parts = Array.from(bytes, (byte) => String.fromCharCode(byte));
    const whole = this.ranks.get(parts.join(""));
    if (whole !== undefined) return [whole];
    for (;;) {
      let best = Infinity;
      let place = -1;
      for (let n = 0; n + 1 < parts.length; n++) {
        const rank = this.ranks.get(parts[n] + parts[n + 1]);
        if (rank < best) [best, place] = [rank, n];
      }
      if (place < 0) return parts.map((part) => this.ranks.get(part));
      parts.splice(place, 2, parts[place] + parts[place + 1]);
    }
  }

  /** The bytes of a token; for a special token, its name. null if there is no such token. */
  tokenBytes(id) {
    const name = this.specialNames.get(id);
    return name !== undefined ? new TextEncoder().encode(name) : (this.bytes[id] ?? null);
  }

  /** Whether an id may be generated: all except reserved ones. */
  isUsable(id) {
    return id in this.bytes || HARMONY_SPECIALS.includes(this.specialNames.get(id));
  }

  /** Whether these are ordinary tokens that decode to exactly this text. */
  decodesTo(ids, text) {
    const bytes = ids.flatMap((id) => [...(this.bytes[id] ?? [NaN])]);
    const wanted = new TextEncoder().encode(text);
    return bytes.length === wanted.length && bytes.every((byte, n) => byte === wanted[n]);
  }

  /** The text of ids, special tokens by name; bytes that are not UTF-8 in hexadecimal. */
  decode(ids) {
    const utf8 = new TextEncoder();
    const all = ids.map((id) => this.tokenBytes(id) ?? utf8.encode(`<no token ${id}>`));
    return decodeAll(all.flatMap((bytes) => [...bytes]), showHexadecimal);
  }
}

function showHexadecimal(bytes) {
  return bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
}
