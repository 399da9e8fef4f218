/**
 * What the system message demands of the messages after it.
 *
 * It lists the channels ("Channel must be included for every message"), says where calls must go,
 * and, with the developer message, declares the tools. Each kind of message ends with its own stop
 * token. The parser reports every deviation.
 */

import { quote, removePrefix, strip } from "../python_text.js";
import { Kind } from "./events.js";
import { CONTENT_TYPES } from "./header_fields.js";
import { CHANNELS } from "./messages.js";
import { CALL, CONSTRAIN, END, RETURN } from "./specials.js";

const FUNCTIONS = "functions.";

export class Demands {
  /**
   * @param {string[] | null} recipients the declared tools; null allows any
   * @param {string[]} channels of the assistant's messages; if empty, a message needs none
   * @param {boolean} isReply the stream is what the model wrote as the assistant, so no other
   *   author may occur
   */
  constructor(recipients, channels, isReply) {
    this.recipients = recipients;
    this.channels = channels;
    this.isReply = isReply;
  }

  /** The deviations of a header that is complete. */
  checkHeader(header) {
    const problems = this.checkAuthor(header);
    const { channel } = header;
    const isOwn = header.role === "assistant";
    const valid = this.channels.length ? this.channels : CHANNELS;
    if (channel !== null && !valid.includes(channel)) {
      problems.push([Kind.UNKNOWN_CHANNEL, `unknown channel ${quote(channel)}`]);
    }
    const isReported = header.has(Kind.EMPTY_CHANNEL, Kind.UNKNOWN_CHANNEL);
    if (isOwn && channel === null && this.channels.length && !isReported) {
      problems.push([Kind.MISSING_CHANNEL, "the message has no channel"]);
    }
    problems.push(...(isOwn ? this.checkCall(header) : this.checkRecipient(header)));
    const type = strip(removePrefix(header.contentType ?? "", CONSTRAIN));
    if (type && !CONTENT_TYPES.includes(type)) {
      problems.push([Kind.UNKNOWN_CONTENT_TYPE, `unknown content type ${quote(type)}`]);
    }
    return problems;
  }

  /** The deviations of the special token that ends a message. */
  checkStop(header, stop) {
    if (header.role === "assistant" && !header.recipient && stop === CALL) {
      if (lacksRecipient(header)) return []; // reported with the header
      return [[Kind.MISSING_RECIPIENT, `${CALL} ends a message without a recipient`]];
    }
    const expected = listStops(header);
    if (expected.includes(stop)) return [];
    const what = header.recipient ? "a call" : `a message on ${header.channel || "no channel"}`;
    return [[Kind.WRONG_STOP, `${stop} ends ${what}; expected ${expected.join(" or ")}`]];
  }

  /** The deviation of a stream that ends after this message. */
  checkEnd(last) {
    if (!this.isReply || last.role !== "assistant" || last.recipient) return [];
    if (!["analysis", "commentary"].includes(last.channel)) return [];
    return [[Kind.UNFINISHED_TURN, "the stream ended before an answer or a call"]];
  }

  checkAuthor(header) {
    const problems = [];
    const isKnown = this.recipients === null || this.recipients.includes(header.name);
    if (header.role === "tool" && !isKnown && !header.has(Kind.UNKNOWN_AUTHOR)) {
      const message = `${quote(header.name)} is neither a role nor a declared tool`;
      problems.push([Kind.UNKNOWN_AUTHOR, message]);
    }
    if (this.isReply && header.role !== "assistant") {
      const who = quote(header.name || header.role);
      const message = `the model wrote a message of ${who}; the reply ends before it`;
      problems.push([Kind.INVENTED_MESSAGE, message]);
    }
    return problems;
  }

  checkCall(header) {
    const name = header.recipient;
    if (!name) {
      const message = "a message with a content type names no recipient";
      return lacksRecipient(header) ? [[Kind.MISSING_RECIPIENT, message]] : [];
    }
    const problems = this.checkRecipient(header);
    let places = ["commentary", "analysis"].filter((each) => this.channels.includes(each));
    if (this.recipients !== null && name.startsWith(FUNCTIONS)) places = places.slice(0, 1);
    const { channel } = header;
    if (places.length && this.channels.includes(channel) && !places.includes(channel)) {
      const message = `a call of ${quote(name)} on ${channel}; expected ${places.join(" or ")}`;
      problems.push([Kind.WRONG_CHANNEL, message]);
    }
    return problems;
  }

  checkRecipient(header) {
    let known = this.recipients;
    if (header.role !== "assistant" && known !== null) known = ["assistant"];
    if (!header.recipient || known === null || known.includes(header.recipient)) return [];
    return [[Kind.UNKNOWN_RECIPIENT, `unknown recipient ${quote(header.recipient)}`]];
  }
}

/** Whether a content type shows that the message is a call, although it names no tool. */
function lacksRecipient(header) {
  const isReported = header.has(Kind.RECIPIENT_NOT_A_TOOL, Kind.MALFORMED_RECIPIENT);
  const isPlace = ["analysis", "commentary"].includes(header.channel);
  return header.contentType !== null && isPlace && !header.recipient && !isReported;
}

/** The special tokens that may end a message. */
function listStops(header) {
  if (header.role !== "assistant") return [END];
  if (header.recipient) return [CALL];
  return ["analysis", "commentary"].includes(header.channel) ? [END] : [RETURN, END];
}

/**
 * The tools that the system and developer messages declare; null if there is no such message, or
 * if one is plain text, which may declare tools in its own way.
 * @returns {string[] | null}
 */
export function findDeclaredTools(messages) {
  const names = [];
  let isKnown = false;
  for (const message of messages) {
    for (const part of message.content) {
      if (part.type !== "text") {
        isKnown = true;
        for (const space of Object.values(part.tools ?? {})) {
          const functions = space.tools.map((tool) => `${space.name}.${tool.name}`);
          names.push(...(functions.length ? functions : [space.name]));
        }
      } else if (["system", "developer"].includes(message.role)) {
        return null;
      }
    }
  }
  return isKnown ? names : null;
}

/** The channels that the system message demands; empty if a message needs none. */
export function findDemandedChannels(messages) {
  const parts = messages.flatMap((message) => message.content);
  const system = parts.find((part) => part.type === "system_content");
  if (!system) return CHANNELS;
  const config = system.channel_config;
  return config?.channel_required ? config.valid_channels : [];
}
