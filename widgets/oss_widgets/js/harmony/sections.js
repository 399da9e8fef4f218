/**
 * The text of system and developer messages: sections separated by a blank line.
 *
 * Left out: response formats, which are refused.
 */

import { HarmonyError } from "../errors.js";
import { writeSignature } from "./schema.js";

/** Whether any developer content has function tools: then the system message mentions them. */
export function hasFunctionTools(messages) {
  return messages.some((message) => message.content.some((part) => {
    return part.type === "developer_content" && part.tools?.functions?.tools.length > 0;
  }));
}

/** The text of one content in a message of `role`. */
export function contentText(part, role, functionTools) {
  if (part.type === "text") return part.text;
  const [name, owner] = part.type === "system_content"
    ? ["SystemContent", "system"]
    : ["DeveloperContent", "developer"];
  if (role !== owner) {
    const found = role[0].toUpperCase() + role.slice(1);
    throw new HarmonyError(`${name} may only appear in ${owner} messages, found in ${found}`);
  }
  return owner === "system" ? systemText(part, functionTools) : developerText(part);
}

/** Identity and dates, effort, tools, channels. */
function systemText(content, functionTools) {
  const identity = [content.model_identity ?? null];
  const { knowledge_cutoff: cutoff, conversation_start_date: date } = content;
  identity.push((cutoff ?? null) === null ? null : `Knowledge cutoff: ${cutoff}`);
  identity.push((date ?? null) === null ? null : `Current date: ${date}`);
  const present = identity.filter((line) => line !== null);
  const sections = present.length ? [present.join("\n")] : []; // an empty identity counts
  if (content.reasoning_effort) {
    sections.push(`Reasoning: ${content.reasoning_effort.toLowerCase()}`);
  }
  if (content.tools && Object.keys(content.tools).length) sections.push(toolsText(content.tools));
  if (content.channel_config?.valid_channels.length) {
    sections.push(channelsText(content.channel_config, functionTools));
  }
  return sections.join("\n\n");
}

function channelsText(config, functionTools) {
  let text = `# Valid channels: ${config.valid_channels.join(", ")}.`;
  if (config.channel_required) text += " Channel must be included for every message.";
  const rule = "\nCalls to these tools must go to the commentary channel: 'functions'.";
  return functionTools ? text + rule : text;
}

/** Instructions, tools. */
function developerText(content) {
  if (content.response_formats?.length) {
    throw new HarmonyError("response formats are not written here; remove them");
  }
  const sections = [];
  const instructions = content.instructions ?? null;
  if (instructions !== null) sections.push("# Instructions", instructions); // even if empty
  if (content.tools && Object.keys(content.tools).length) sections.push(toolsText(content.tools));
  return sections.join("\n\n");
}

/** `# Tools`, then one block per namespace, sorted by key. */
function toolsText(tools) {
  const keys = Object.keys(tools).sort();
  return ["# Tools", ...keys.map((key) => namespaceText(tools[key]))].join("\n\n");
}

function namespaceText({ name, description, tools }) {
  const lines = [`## ${name}\n`];
  const comment = tools.length ? "// " : ""; // `python` has no functions: no slashes
  lines.push(...splitLines(description ?? "").map((line) => comment + line));
  if (!tools.length) return lines.join("\n");
  lines.push(`namespace ${name} {\n`);
  for (const tool of tools) {
    lines.push(...splitLines(tool.description ?? "").map((line) => `// ${line}`));
    lines.push(`type ${tool.name} = ${writeSignature(tool)} => any;\n`);
  }
  return [...lines, `} // namespace ${name}`].join("\n");
}

/** Split at newlines only; drop one carriage return per line and an empty last line. */
function splitLines(text) {
  const lines = text.split("\n").map((line) => line.replace(/\r$/, ""));
  return lines.at(-1) === "" && (text.endsWith("\n") || !text) ? lines.slice(0, -1) : lines;
}
