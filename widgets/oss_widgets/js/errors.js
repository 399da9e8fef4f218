/**
 * The errors that a user can cause. Each is one sentence: what is wrong, where, what to do.
 */

export class LabError extends Error {}

/** A conversation that cannot be rendered, or a stream that strict parsing rejects. */
export class HarmonyError extends LabError {}
