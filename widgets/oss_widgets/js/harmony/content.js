/**
 * The message that is being read: its header, and its content as far as it is decoded.
 *
 * A token may end inside a character. Its last bytes then wait for the next token. Bytes that are
 * not UTF-8 become U+FFFD, one per broken sequence.
 */

import { BROKEN, decodeUtf8 } from "../utf8.js";
import { Kind } from "./events.js";

export class OpenMessage {
  /**
   * @param {import("./header_fields.js").HeaderFields} header
   * @param {number} start position of its first token
   * @param {number} contentStart the first content token that no delta covers yet
   * @param {{add: function, report: function}} log where its events go
   */
  constructor(header, start, contentStart, log) {
    this.header = header;
    this.start = start;
    this.contentStart = contentStart;
    this.log = log;
    this.ids = [];
    this.text = "";
    this.waiting = []; // bytes of a character that is not complete yet
  }

  /** The event that begins the content. */
  buildStart() {
    const { role, name, channel, recipient, contentType } = this.header;
    const tokens = [this.start, this.contentStart];
    return { event: "start", role, name, channel, recipient, content_type: contentType, tokens };
  }

  /** Add a token of the content: its special name if it has one, its bytes or null if unknown. */
  addToken(token, name, bytes, position) {
    this.ids.push(token);
    if (name !== undefined) {
      const message = `${name} inside a message; kept as text`;
      this.log.report(position, Kind.SPECIAL_IN_CONTENT, message);
      this.flush(position);
      this.addText(name, position + 1);
    } else if (bytes === null) {
      this.log.report(position, Kind.UNKNOWN_TOKEN, `id ${token} is not in the vocabulary`);
      this.flush(position);
      this.addText(BROKEN, position + 1);
    } else {
      this.addText(this.decode(bytes, position), position + 1);
    }
  }

  /** Add text whose tokens end before `end`. */
  addText(text, end) {
    if (!text) return;
    this.text += text;
    const { channel, recipient } = this.header;
    this.log.add({ event: "delta", text, channel, recipient, tokens: [this.contentStart, end] });
    this.contentStart = end;
  }

  /** Replace an incomplete character by U+FFFD, in the delta and in the content. */
  flush(position) {
    if (!this.waiting.length) return;
    const message = "an incomplete UTF-8 character; replaced by U+FFFD";
    this.log.report(position, Kind.INVALID_UTF8, message);
    this.waiting = [];
    this.addText(BROKEN, position);
  }

  /** The message with the content so far. @returns {import("./messages.js").Message} */
  build() {
    const { role, ...others } = this.header;
    const fields = { name: others.name, channel: others.channel, recipient: others.recipient };
    const content = [{ type: "text", text: this.text, ids: this.ids }];
    return { role, content, ...fields, content_type: others.contentType };
  }

  /** The text that these bytes complete. An incomplete character waits for the next bytes. */
  decode(bytes, position) {
    const { text, broken, waiting } = decodeUtf8([...this.waiting, ...bytes]);
    for (let n = 0; n < broken; n++) {
      const message = "bytes that are not UTF-8; replaced by U+FFFD";
      this.log.report(position, Kind.INVALID_UTF8, message);
    }
    this.waiting = waiting;
    return text;
  }
}
