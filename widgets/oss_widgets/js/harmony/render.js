/**
 * Render a conversation to token ids.
 *
 *     <|start|>role[ to=recipient][<|channel|>channel][ content type]<|message|>content<|end|>
 *
 * Each piece is tokenized separately, and special tokens in it are not interpreted, so text cannot
 * be mistaken for structure. There are two header layouts. `library` is the one above. `model` puts
 * the recipient after the channel in assistant messages, as gpt-oss samples it. A policy decides
 * which earlier reasoning is left out.
 *
 * Left out: the loss mask, the characters of each token, and warnings about lost calls.
 */

import { HarmonyError } from "../errors.js";
import { quote, removePrefix } from "../python_text.js";
import { isFinal } from "./exchanges.js";
import { ROLES } from "./messages.js";
import { MODES, findDroppedMessages } from "./policy.js";
import { checkHeaderFields } from "./round_trip.js";
import { contentText, hasFunctionTools } from "./sections.js";
import { CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, START } from "./specials.js";

const LAYOUTS = ["library", "model"];

/**
 * Render a conversation.
 *
 * Modes: `completion` adds `<|start|>` and `nextRole`; `conversation` adds nothing; `training`
 * makes the last token `<|return|>` if the last message is the final answer; `message` renders only
 * the first message.
 * @param {import("./messages.js").Message[]} messages
 * @param {import("../tokenizer.js").Tokenizer} tokenizer
 * @returns {{ids: number[], dropped: number[]}} the tokens, and the messages that were left out
 */
export function render(messages, tokenizer, options = {}) {
  const { mode = "completion", policy = "spec", layout = "model" } = options;
  const { nextRole = "assistant" } = options;
  for (const [what, value, names] of [
    ["mode", mode, MODES],
    ["layout", layout, LAYOUTS],
    ["role", nextRole, ROLES],
  ]) {
    if (!names.includes(value)) {
      throw new HarmonyError(`unknown ${what} ${quote(value)}; use one of ${names.join(", ")}`);
    }
  }
  const shown = mode === "message" ? messages.slice(0, 1) : messages;
  const dropped = findDroppedMessages(shown, policy, mode);
  const writer = new Writer(tokenizer);
  const functionTools = hasFunctionTools(messages);
  shown.forEach((message, index) => {
    if (dropped.includes(index)) return;
    try {
      renderMessage(writer, message, layout, functionTools);
    } catch (error) {
      if (!(error instanceof HarmonyError)) throw error;
      throw new HarmonyError(`messages[${index}]: ${error.message}`);
    }
  });
  if (mode === "completion") {
    writer.special(START);
    writer.text(nextRole);
  }
  if (mode === "training" && shown.length && isAnswer(shown.at(-1), layout)) {
    writer.ids.pop();
    writer.special(RETURN);
  }
  return { ids: writer.ids, dropped };
}

/** Whether a turn ends with this message. To the public library, a call on `final` is one. */
function isAnswer(message, layout) {
  if (layout === "model") return isFinal(message);
  return message.role === "assistant" && message.channel === "final";
}

class Writer {
  constructor(tokenizer) {
    this.tokenizer = tokenizer;
    this.ids = [];
  }

  special(name) {
    this.ids.push(this.tokenizer.specialIds.get(name));
  }

  /** Encode `text` separately, or reuse the tokens that the model generated for it. */
  text(text, generated = []) {
    if (/\p{Cs}/u.test(text)) {
      throw new HarmonyError("text with a lone surrogate cannot be encoded as UTF-8; remove it");
    }
    const isSame = generated.length > 0 && this.tokenizer.decodesTo(generated, text);
    for (const id of isSame ? generated : this.tokenizer.encode(text)) this.ids.push(id);
  }
}

function renderMessage(writer, message, layout, functionTools) {
  const isOwn = message.role === "assistant";
  const author = authorText(message);
  if (layout === "model") checkHeaderFields(message);
  writer.special(START);
  writer.text(author);
  const isChannelFirst = layout === "model" && isOwn;
  if (!isChannelFirst) writeRecipient(writer, message);
  if ((message.channel ?? null) !== null) {
    writer.special(CHANNEL);
    writer.text(message.channel);
  }
  if (isChannelFirst) writeRecipient(writer, message);
  const type = message.content_type ?? null;
  if (type !== null && type.startsWith(CONSTRAIN)) {
    writer.text(" ");
    writer.special(CONSTRAIN);
    writer.text(removePrefix(type, CONSTRAIN));
  } else if (type !== null) {
    writer.text(` ${type}`);
  }
  writer.special(MESSAGE);
  for (const part of message.content) {
    writer.text(contentText(part, message.role, functionTools), part.ids);
  }
  writer.special(isOwn && (message.recipient ?? null) !== null ? CALL : END);
}

function authorText({ role, name }) {
  const isNamed = (name ?? null) !== null;
  if (role !== "tool") return isNamed ? `${role}:${name}` : role;
  if (!isNamed) throw new HarmonyError("Tools should have a name!");
  return name;
}

function writeRecipient(writer, { recipient }) {
  const isAddressed = (recipient ?? null) !== null && recipient !== "all";
  if (isAddressed) writer.text(` to=${recipient}`);
}
