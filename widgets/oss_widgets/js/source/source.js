/**
 * Source: the one interface through which a view gets the model's numbers.
 *
 * There are three: nano running in the page (`live.js`), a stored trace (`trace.js`), and a Python
 * kernel (`kernel.js`). `array.js` has no model, only tokens and an array of the caller. A view
 * computes nothing; it hides what its source cannot do (`can`). All methods are asynchronous, so the
 * work may happen in this page or elsewhere.
 *
 * A source holds runs. A run is one sequence of tokens: a prompt, and the reply as far as it was
 * generated. Pause a run by aborting `step`; continue it by calling `step` again. `fork` is the one
 * way to change a run: keep the tokens before a position, optionally write other tokens there, use
 * other interventions from the last kept token on, since reading it predicts the next one. Editing
 * a token, intervening and scrubbing back are forks.
 *
 * A mistake of the user is a LabError with one sentence; views show it as it is.
 *
 * @typedef {object} Alternative
 * @property {number} id
 * @property {string} text
 * @property {number} logprob  nats
 *
 * @typedef {object} Token  as `record/token_labels.js` labels it
 * @property {number} id
 * @property {string} text  of a special token its name
 * @property {number} message  number of its message; -1 between messages
 * @property {string | null} role
 * @property {string | null} channel
 * @property {string | null} recipient
 * @property {"content" | "format"} part
 * @property {number | null} logprob  of this token when it was generated, nats; null if unknown
 * @property {Alternative[]} alternatives  most likely first, empty if unknown
 *
 * @typedef {object} Request  one question, plain data
 * @property {string} question
 * @property {"low" | "medium" | "high"} effort
 * @property {string | null} [instructions]
 * @property {object[]} [tools]  descriptions, as in `harmony/messages.js`
 * @property {[string, string][]} [history]  earlier questions and answers
 * @property {Record<string, string>} [toolOutputs]  known outputs, by the text of the call
 * @property {{temperature?: number, topK?: number | null, topP?: number, minP?: number,
 *   seed?: number | null}} [sampling]  without a temperature: the most likely token
 * @property {number} [maxTokens]  per reply
 * @property {Intervention[]} [interventions]
 *
 * @typedef {import("../hooks/interventions.js").Intervention} Intervention
 *
 * @typedef {object} Run
 * @property {string} id
 * @property {Token[]} tokens  prompt and reply; grows during `step`
 * @property {number} promptLength
 * @property {Request | null} request  null if the run was not asked here
 * @property {Intervention[]} interventions  in force at the last token
 * @property {{run: string, at: number} | null} parent  the run that it was forked from
 * @property {"return" | "call" | "length" | "endoftext" | "invented" | null} stop  null: unfinished
 * @property {{code: string, sentence: string, token: number}[]} diagnostics  of the Harmony format
 * @property {{name: string, text: string}[]} openCalls  tool calls that wait for an output
 * @property {{role: string, channel: string | null, recipient: string | null, text: string,
 *   isOpen: boolean}[]} messages  after the prompt: replies, tools' outputs, what is being written
 * @property {import("./call.js").Call[]} calls  one for each message that is a call, in their order
 * @property {string | null} note  why the open calls are not run, as a sentence
 * @property {string} answer  text of the final channel
 * @property {number} seconds  spent generating
 * @property {string | null} [missing]  what a trace does not contain, as a sentence
 *
 * @typedef {object} Recording
 * @property {number[]} shape  with the tokens first where the point has them. The key axis may end at
 *   the last position of the range.
 * @property {Float32Array | Int32Array | Uint8Array} data  row by row; NaN, or -1 for an id, where a
 *   trace has no number
 *
 * @typedef {object} Source
 * @property {"live" | "trace" | "kernel" | "array"} kind
 * @property {string} name  of the model
 * @property {object} config  the fields of config.json; of an older trace, those that its tensors show
 * @property {Set<Ability>} can
 * @property {object[]} examples  questions to offer, as in `nano/gallery.js`; may be empty
 * @property {object | null} [calculator]  description of the tool that the source runs itself
 * @property {string[]} [tools]  names of the tools that Python runs for every question
 * @property {Run[]} runs  oldest first
 * @property {Run | null} shown  the run that views show; null before a question was asked
 * @property {import("./array.js").CallerArray} [array]  the caller's numbers, which a view then shows
 * @property {(request: Request) => Promise<Run>} ask  renders the prompt; generates nothing
 * @property {(run: Run, options?: {count?: number, signal?: AbortSignal}) => AsyncIterable<Token>} step
 *   generates tokens, and appends known tool outputs, until the run stops
 * @property {(run: Run, at: number, change?: {ids?: number[], text?: string,
 *   interventions?: Intervention[]}) => Promise<Run>} fork  text is tokenized as ordinary text
 * @property {(run: Run, outputs: string[]) => Promise<void>} answerCalls  then `step` continues
 * @property {(run: Run) => Promise<number | null>} estimate  expected seconds until the run is
 *   finished; null before anything was measured
 * @property {(run: Run) => Promise<string>} toPython  code that reproduces the run
 * @property {(run: Run) => void} show
 * @property {(name: string, layer: number | null, run?: Run) => boolean} hasPoint  of the shown run if
 *   `run` is left out
 * @property {(run: Run, name: string, layer: number | null,
 *   range?: {from: number, to: number}) => Promise<Recording>} points  of some positions, else all
 * @property {(run: Run, name: Ability, options: object) => Promise<object>} analyze
 * @property {(change: "shown" | "tokens" | "runs", call: (run: Run) => void) => () => void} on
 *   "shown": another run is shown; "tokens": a run has grown; "runs": one was added. Returns how to
 *   stop.
 * @property {() => void} close
 *
 * @typedef {"ask" | "fork" | "points" | "block" | "knockOut" | "knockOutMarks" | "lens"
 *   | "attribution" | "commitment" | "effortLens" | "flipBit"} Ability
 *   "points": any point can be computed; without it only those of `hasPoint` exist.
 *
 * Analyses, their options, and what they return:
 *
 *     knockOut       {at}             KnockOut of `analysis/knockout.js`
 *     knockOutMarks  {}               {largest: Float32Array [seq]}: largest change of a log-probability,
 *                                      NaN where none was measured. Optional: `signal`, and
 *                                      `onProgress(largest)`
 *     lens           {from, to, top}  LensCell[layer][position] of `analysis/lens.js`, with topTexts
 *     attribution    {at}             {logit, embedding, bias: [layer], heads: [layer][head],
 *                                      slots: [layer][slot], expertIds: [layer][slot]}: parts of the
 *                                      logit of tokens[at]
 *     commitment     {}               {steps: [{kept, thought, answer, logprob}]}: the answer if the
 *                                      thinking ended after `kept` tokens
 *     effortLens     {}               {efforts: [{effort, answer, tokens: {channel: count}}],
 *                                      pairs: [{efforts: [a, b], divergence: [layer],
 *                                      byChance: [layer]}]} of the run's question
 *     block          Place            Block
 *     flipBit        {place, bit, at} {block: Block, outputChange, before, after}: nothing stays
 *                                      changed
 *
 * `flipBit` flips one bit of a stored block for one forward pass of the tokens before `at`. Bits 0
 * to 127 belong to the 32 weights, four each: mantissa, low and high exponent bit, sign. Bits 128 to
 * 135 are those of the scale, lowest first. `outputChange` is the root mean square of the change of
 * `moe.out` of that layer at the last of these tokens, relative to that of `moe.out`. `before` and
 * `after` are the likeliest next tokens, as alternatives.
 *
 * Branches need no analysis: they are the runs and their parents.
 *
 * @typedef {object} Block  32 weights that share a scale
 * @property {Uint8Array} packed  16 bytes, two weights each, the even one in the low half
 * @property {number} scale  the stored byte
 * @property {Float32Array} values  32
 *
 * @typedef {object} Place  one MXFP4 block
 * @property {number} layer
 * @property {number} expert
 * @property {"gate_up" | "down"} matrix
 * @property {number} row
 * @property {number} block
 */

/** Calls registered by name of a change, for `Source.on` and the selection. */
export class Listeners {
  constructor() {
    this.calls = new Map();
  }

  /** @returns {() => void} stops it */
  on(change, call) {
    if (!this.calls.has(change)) this.calls.set(change, new Set());
    this.calls.get(change).add(call);
    return () => this.calls.get(change).delete(call);
  }

  notify(change, value) {
    for (const call of [...(this.calls.get(change) ?? [])]) call(value);
  }
}
