/**
 * Harmony's special tokens, by name.
 */

export const START = "<|start|>";
export const END = "<|end|>";
export const MESSAGE = "<|message|>";
export const CHANNEL = "<|channel|>";
export const CONSTRAIN = "<|constrain|>";
export const RETURN = "<|return|>";
export const CALL = "<|call|>";
export const ENDOFTEXT = "<|endoftext|>";

/** The tokens that end a message. */
export const STOPS = [RETURN, END, CALL];

/** Ids after which generation ends. After `<|end|>` the model continues with its next message. */
export function samplingStops(tokenizer) {
  return [RETURN, CALL, ENDOFTEXT].map((name) => tokenizer.specialIds.get(name));
}
