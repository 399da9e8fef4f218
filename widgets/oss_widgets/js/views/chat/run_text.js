/**
 * A run in words: how it was made, how it ended, how many tokens each channel has.
 */

import { joinTexts } from "../../record/token_texts.js";
import { describeIntervention, describeStop } from "../run_names.js";

const CHANNELS = ["analysis", "commentary", "final"];

/**
 * Content tokens that the model wrote on each channel; its other tokens count as `format`, as in
 * `count_channel_tokens` of Python. Outputs of tools do not count.
 * @returns {Record<string, number>}
 */
export function countTokens({ tokens, promptLength }) {
  const counts = { analysis: 0, commentary: 0, final: 0, format: 0 };
  for (let n = promptLength; n < tokens.length; n++) {
    const { role, part, channel } = tokens[n];
    if (role !== null && role !== "assistant") continue;
    counts[part === "content" && CHANNELS.includes(channel) ? channel : "format"] += 1;
  }
  return counts;
}

/** "analysis 140, final 5, format 10, together 155 tokens" */
export function describeCounts(counts) {
  const parts = Object.entries(counts).filter(([, count]) => count);
  const sum = parts.reduce((total, [, count]) => total + count, 0);
  return [...parts.map(([name, count]) => `${name} ${count}`), `together ${sum} tokens`].join(", ");
}

/** A duration as people say it. */
export function describeSeconds(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return `${Math.round(seconds / 60)} min`;
}

/** The time that a tool took. A browser measures no less than 0.1 ms. */
export function describeMilliseconds(seconds) {
  const milliseconds = 1000 * seconds;
  if (milliseconds < 0.05) return "less than 0.1 ms";
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

/** ", 1.2 s", or nothing if the run was not generated here. */
export function describeTime({ seconds }) {
  return seconds > 0 ? `, ${describeSeconds(seconds)}` : "";
}

/** What makes a run different from the one that it was forked from. */
export function describeOrigin(run, runs) {
  const changes = run.interventions.map((each) => `, with ${describeIntervention(each)}`).join("");
  if (!run.parent) return run.request ? `asked at ${run.request.effort} effort${changes}` : "given";
  const { run: id, at } = run.parent;
  const parent = runs.find((each) => each.id === id);
  const isChanged = parent && describeAll(parent.interventions) !== describeAll(run.interventions);
  const isEdited = run.tokens.length > at && run.tokens[at].logprob === null;
  const how = isChanged ? "intervened" : isEdited ? "edited" : "continued";
  return `${id}, ${how} at token ${at}${changes}`;
}

function describeAll(interventions) {
  return interventions.map(describeIntervention).join("; ");
}

/** What a message is: its channel, and whether it calls a tool or is a tool's output. */
export function describeMessage(message, messages) {
  const channel = message.channel ?? "no channel";
  if (message.role === "tool") {
    const calls = messages.slice(0, messages.indexOf(message)).filter(({ role }) => role !== "tool");
    const name = calls.findLast(({ recipient }) => recipient)?.recipient ?? "a tool";
    return `${channel}: output of ${name}`;
  }
  if (message.recipient) return `${channel}: call of ${message.recipient}`;
  return message.role === "assistant" ? channel : `${message.role}: ${channel}`;
}

/** " (being written)" or " (not finished)" of an open message, else nothing. */
export function describeState({ isOpen }, { job }) {
  if (!isOpen) return "";
  return job ? " (being written)" : " (not finished)";
}

/** The whole run as text, for a file. */
export function writeTranscript(run) {
  const { request, messages } = run;
  const effort = request ? ` (${request.effort} effort)` : "";
  const asked = [`question${effort}\n${questionOf(run)}`];
  const changes = run.interventions.map((each) => `intervention: ${describeIntervention(each)}`);
  const parts = messages.map((message) => `${describeMessage(message, messages)}\n${message.text}`);
  const counts = run.tokens.length ? `; ${describeCounts(countTokens(run))}` : "";
  const end = `${describeStop(run)}${describeTime(run)}${counts}`;
  const notes = run.diagnostics.map(({ code, sentence }) => `${code}: ${sentence}`);
  return `${[...asked, ...changes, ...parts, end, ...notes].join("\n\n")}\n`;
}

/** The exact text before the reply, with the special tokens. */
export function promptText({ tokens, promptLength }) {
  return joinTexts(tokens.slice(0, promptLength).map(({ text }) => text));
}

/** The question: of a run that was not asked here, the last message of the user in the prompt. */
export function questionOf({ request, tokens, promptLength }) {
  if (request) return request.question;
  const prompt = tokens.slice(0, promptLength);
  const last = prompt.findLast(({ role }) => role === "user")?.message;
  const content = prompt.filter(({ message, part }) => message === last && part === "content");
  return joinTexts(content.map(({ text }) => text));
}
