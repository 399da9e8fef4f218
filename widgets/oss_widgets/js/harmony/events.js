/**
 * Everything that can be wrong with a stream. The comments say how the parser recovers.
 *
 * Events of the parser are plain objects, with the keys of the JSON that oss_lab writes:
 *     {event: "header", text, channel, tokens}          one more token of a header
 *     {event: "start", role, name, channel, recipient, content_type, tokens}   content follows
 *     {event: "delta", text, channel, recipient, tokens}                  new text of a message
 *     {event: "end", message, stop, tokens}             the message is complete
 *     {event: "diagnostic", kind, position, message}    something is wrong at this token
 * `tokens` is [first, last + 1], counted from the start of the stream.
 */

export const Kind = {
  MISSING_START: "missing_start", // header without <|start|>: its author is the assistant
  TEXT_BETWEEN_MESSAGES: "text_between_messages", // skipped; reported once per run of text
  UNEXPECTED_STOP: "unexpected_stop", // between messages: skipped; <|endoftext|> ends a message
  DOUBLE_START: "double_start", // <|start|> inside a header: the header starts over
  MISSING_MESSAGE_TOKEN: "missing_message_token", // stop in a header: extra words are content
  MISSING_END: "missing_end", // <|start|> inside content: the message ends before it
  MISSING_ROLE: "missing_role", // the assistant is assumed to be the author
  UNKNOWN_AUTHOR: "unknown_author", // neither a role nor a declared tool: kept as a tool
  INVENTED_MESSAGE: "invented_message", // the model wrote for another author
  GLUED_HEADER: "glued_header", // fields without separator, such as `assistantfinal`: separated
  MALFORMED_HEADER: "malformed_header", // readable, but not in the format's order or spacing
  MISSING_CHANNEL: "missing_channel", // an assistant message without a channel: kept without
  EMPTY_CHANNEL: "empty_channel", // <|channel|> without a name: no channel
  UNKNOWN_CHANNEL: "unknown_channel", // kept if it can be rendered again
  DUPLICATE_CHANNEL: "duplicate_channel", // the last one is used
  WRONG_CHANNEL: "wrong_channel", // a call on a channel where calls must not be: kept
  MALFORMED_RECIPIENT: "malformed_recipient", // `to= f`, or no `to=`: read as the recipient
  MISSING_RECIPIENT: "missing_recipient", // a call that names no tool: not a call
  RECIPIENT_NOT_A_TOOL: "recipient_not_a_tool", // `to=user`: dropped, the channel decides
  UNKNOWN_RECIPIENT: "unknown_recipient", // not a declared tool: kept
  UNKNOWN_CONTENT_TYPE: "unknown_content_type", // kept in a call and after <|constrain|>
  MALFORMED_CONTENT_TYPE: "malformed_content_type", // not a word: dropped
  EXTRA_HEADER_WORDS: "extra_header_words", // more words than the header has fields for: dropped
  SPECIAL_IN_HEADER: "special_in_header", // skipped
  SPECIAL_IN_CONTENT: "special_in_content", // its name becomes part of the content
  WRONG_STOP: "wrong_stop", // this kind of message must end with another special token
  UNKNOWN_TOKEN: "unknown_token", // no such id: U+FFFD in content, skipped in a header
  INVALID_UTF8: "invalid_utf8", // U+FFFD
  UNFINISHED_HEADER: "unfinished_header", // the stream ended: extra words are content
  UNFINISHED_MESSAGE: "unfinished_message", // the stream ended: the message is kept up to there
  UNFINISHED_TURN: "unfinished_turn", // the stream ended before an answer or a call
};
