/**
 * Messages: plain objects, with the keys of the JSON that oss_lab reads and writes.
 *
 * So a conversation can pass between Python and the page unchanged. A key that is missing or null
 * is an absent field; an empty string is present and is rendered.
 */

/**
 * @typedef {{type: "text", text: string, ids?: number[]}} TextContent
 *   Text, rendered unchanged. `ids` are the tokens that the model generated for it; rendering
 *   reuses them if they decode to the text.
 * @typedef {{name: string, description?: string, parameters?: object}} ToolDescription
 *   One function; `parameters` is a JSON schema.
 * @typedef {{name: string, description?: string, tools: ToolDescription[]}} ToolNamespace
 * @typedef {{type: "system_content", model_identity?: string, reasoning_effort?: string,
 *   conversation_start_date?: string, knowledge_cutoff?: string,
 *   channel_config?: {valid_channels: string[], channel_required: boolean},
 *   tools?: Object<string, ToolNamespace>}} SystemContent
 * @typedef {{type: "developer_content", instructions?: string,
 *   tools?: Object<string, ToolNamespace>}} DeveloperContent
 * @typedef {{role: string, name?: string, content: (TextContent|SystemContent|DeveloperContent)[],
 *   channel?: string, recipient?: string, content_type?: string}} Message
 */

export const ROLES = ["system", "developer", "user", "assistant", "tool"];
export const EFFORTS = ["low", "medium", "high"];
export const CHANNELS = ["analysis", "commentary", "final"];
const IDENTITY = "You are ChatGPT, a large language model trained by OpenAI.";

/**
 * A message with a single content.
 * @param {string} role
 * @param {string | SystemContent | DeveloperContent} content
 * @param {object} fields `name`, `channel`, `recipient`, `content_type`
 * @returns {Message}
 */
export function makeMessage(role, content, fields = {}) {
  const part = typeof content === "string" ? { type: "text", text: content } : content;
  return { role, content: [part], ...fields };
}

/** The content of a system message, with the defaults of oss_lab: no date. */
export function makeSystemContent(fields = {}) {
  return {
    type: "system_content",
    model_identity: IDENTITY,
    reasoning_effort: "medium",
    knowledge_cutoff: "2024-06",
    channel_config: { valid_channels: CHANNELS, channel_required: true },
    ...fields,
  };
}

/** Instructions and function tools of a developer message. */
export function makeDeveloperContent(instructions, tools = []) {
  const declared = tools.length ? { functions: { name: "functions", tools } } : null;
  return { type: "developer_content", instructions: instructions ?? null, tools: declared };
}

/** The text contents of a message, joined. System and developer contents are not included. */
export function messageText(message) {
  return message.content.map((part) => (part.type === "text" ? part.text : "")).join("");
}
