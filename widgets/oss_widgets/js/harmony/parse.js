/**
 * Tokens -> events, one token at a time.
 *
 * Whatever ids the stream contains, the parser continues. Each deviation from what the system
 * message demands is a diagnostic with the token's position. In strict mode the parser throws it.
 */

import { HarmonyError } from "../errors.js";
import { quote } from "../python_text.js";
import { decodeAll } from "../utf8.js";
import { OpenMessage } from "./content.js";
import { Demands } from "./demands.js";
import { EventLog } from "./event_log.js";
import { Kind } from "./events.js";
import { HeaderReader } from "./header_reader.js";
import { CHANNELS, ROLES } from "./messages.js";
import { CALL, CHANNEL, CONSTRAIN, ENDOFTEXT, MESSAGE, RETURN, START, STOPS } from "./specials.js";

/** A streaming parser: `feed` it tokens, use the events it returns, then call `finish`. */
export class StreamParser {
  /**
   * @param {import("../tokenizer.js").Tokenizer} tokenizer
   * @param {string | null} role author of the first message, if the stream starts after
   *   `<|start|>role`, as model output does; null for a stream that starts with `<|start|>`
   * @param {{recipients?: string[] | null, channels?: string[], isStrict?: boolean}} options the
   *   declared tools (null allows any), and the channels that the system message demands
   */
  constructor(tokenizer, role = "assistant", options = {}) {
    const { recipients = null, channels = CHANNELS, isStrict = false } = options;
    if (role !== null && !ROLES.includes(role)) {
      throw new HarmonyError(`unknown role ${quote(role)}; use one of ${ROLES.join(", ")}`);
    }
    this.tokenizer = tokenizer;
    /** @type {import("./messages.js").Message[]} the finished messages */
    this.messages = [];
    /** What is expected next: `ExpectStart`, `Header` or `Content`. */
    this.state = role === null ? "ExpectStart" : "Header";
    this.position = 0; // number of tokens fed
    this.log = new EventLog(isStrict);
    this.demands = new Demands(recipients, channels, role === "assistant");
    this.isSkipping = false; // inside a run of text between messages
    this.lastStop = null;
    this.header = new HeaderReader(role, 0);
    /** @type {OpenMessage | null} */
    this.open = null;
  }

  /** All diagnostics so far. */
  get diagnostics() {
    return this.log.diagnostics;
  }

  /** Process one token or several; returns the events that they cause. */
  feed(tokens) {
    for (const token of typeof tokens === "number" ? [tokens] : tokens) {
      if (!Number.isInteger(token)) throw new HarmonyError(`expected token ids, got ${token}`);
      const name = this.tokenizer.specialNames.get(token);
      if (this.open) this.feedContent(this.open, token, name);
      else if (this.state === "Header") this.feedHeader(token, name);
      else this.feedOutside(token, name);
      this.position += 1;
      this.log.throwIfStrict();
    }
    return this.log.take();
  }

  /** End the stream: close an open header or message with what it has so far. */
  finish() {
    if (this.open) {
      this.report(Kind.UNFINISHED_MESSAGE, "the stream ended inside a message");
      this.endMessage(this.open, null);
    } else if (this.state === "Header") {
      if (this.position > this.header.start && !this.isPrompt()) {
        this.report(Kind.UNFINISHED_HEADER, "the stream ended inside a header");
        this.closeHeader(null);
      }
    } else if (this.messages.length && ![RETURN, CALL].includes(this.lastStop)) {
      this.reportAll(this.demands.checkEnd(this.messages.at(-1)));
    }
    this.state = "ExpectStart";
    this.log.throwIfStrict();
    return this.log.take();
  }

  // Between messages

  feedOutside(token, name) {
    if ([START, CHANNEL, MESSAGE].includes(name) && this.lastStop === RETURN) {
      this.report(Kind.WRONG_STOP, `a message after ${RETURN}, which ends the conversation`);
    }
    if (name === START) {
      this.beginHeader(null);
    } else if (name === CHANNEL || name === MESSAGE) {
      this.report(Kind.MISSING_START, `${name} without ${START}; the assistant is assumed`);
      this.beginHeader("assistant");
      this.feedHeader(token, name);
    } else if (STOPS.includes(name) || name === ENDOFTEXT) {
      this.report(Kind.UNEXPECTED_STOP, `${name} between messages; skipped`);
    } else if (!this.isSkipping) {
      this.report(Kind.TEXT_BETWEEN_MESSAGES, `token id ${token} between messages; skipped`);
    }
    this.isSkipping = ![START, CHANNEL, MESSAGE, ENDOFTEXT, ...STOPS].includes(name);
  }

  // Inside a header

  beginHeader(role) {
    this.state = "Header";
    this.header = new HeaderReader(role, this.position);
  }

  feedHeader(token, name) {
    if (name === undefined) {
      const bytes = this.tokenizer.tokenBytes(token);
      if (bytes === null) {
        this.report(Kind.UNKNOWN_TOKEN, `id ${token} is not in the vocabulary`);
        return;
      }
      this.header.addText(bytes);
      this.addHeaderEvent(decodeAll(bytes));
    } else if (name === MESSAGE) {
      this.startMessage(this.header.read(), this.position + 1);
    } else if (name === CHANNEL || name === CONSTRAIN) {
      this.header.addMarker(name);
      this.addHeaderEvent(name);
    } else if (name === START) {
      this.report(Kind.DOUBLE_START, `${START} inside a header; the header starts over`);
      this.beginHeader(null);
    } else if (STOPS.includes(name) || name === ENDOFTEXT) {
      this.report(Kind.MISSING_MESSAGE_TOKEN, `${name} inside a header, before ${MESSAGE}`);
      this.closeHeader(name);
    } else {
      this.report(Kind.SPECIAL_IN_HEADER, `${name} inside a header; skipped`);
    }
  }

  /** Whether the stream ends where the model continues, after `<|start|>role`. */
  isPrompt() {
    return !this.demands.isReply && this.header.isOnlyRole();
  }

  addHeaderEvent(text) {
    const { position, header: { channel } } = this;
    this.log.add({ event: "header", text, channel, tokens: [position, position + 1] });
  }

  startMessage(header, end) {
    header.problems.push(...this.demands.checkHeader(header));
    this.reportAll(header.problems);
    this.open = new OpenMessage(header, this.header.start, end, this.log);
    this.state = "Content";
    this.log.add(this.open.buildStart());
    return this.open;
  }

  /** Close a header that has no `<|message|>`; its extra words become the content. */
  closeHeader(stop) {
    const [header, text] = this.header.recover(stop === null);
    this.state = "ExpectStart";
    if (header === null) return;
    const message = this.startMessage(header, this.position);
    message.contentStart = message.start;
    message.addText(text, this.position);
    this.endMessage(message, stop);
  }

  // Inside content

  feedContent(message, token, name) {
    if (STOPS.includes(name)) {
      this.endMessage(message, name);
    } else if (name === ENDOFTEXT) {
      this.report(Kind.UNEXPECTED_STOP, `${name} inside a message; the message ends here`);
      this.endMessage(message, name);
    } else if (name === START) {
      this.report(Kind.MISSING_END, `${START} inside a message; the message ends here`);
      this.endMessage(message, null);
      this.beginHeader(null);
    } else {
      message.addToken(token, name, this.tokenizer.tokenBytes(token), this.position);
    }
  }

  endMessage(message, stop) {
    message.flush(this.position);
    if (STOPS.includes(stop)) this.reportAll(this.demands.checkStop(message.header, stop));
    this.messages.push(message.build());
    const tokens = [message.start, stop === null ? this.position : this.position + 1];
    this.log.add({ event: "end", message: this.messages.at(-1), stop, tokens });
    this.open = null;
    this.state = "ExpectStart";
    this.lastStop = stop;
  }

  report(kind, message) {
    this.log.report(this.position, kind, message);
  }

  reportAll(problems) {
    problems.forEach(([kind, message]) => this.report(kind, message));
  }
}
