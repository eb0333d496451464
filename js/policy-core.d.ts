/** Plain data of the config in a file: `{ type: "policy_core/MLP", fields: { hidden: [64, 64], ... } }`. */
export interface Config {
  type: string;
  fields: Record<string, any>;
}

type Numbers = number[] | Float32Array | Float64Array | Int32Array | Uint8Array | Int8Array | Int16Array;

/** An element of a space: a number, nested arrays or one array in C order, an object, a list. */
export type Element = number | boolean | Numbers | Element[] | { [name: string]: Element };

/** What the policy does: a number, an array in C order, an object, a list. */
export type Action = number | Numbers | Action[] | { [name: string]: Action };

/** True = allowed, in the structure of the action space; null for none. */
export type Mask = null | boolean | Mask[] | { [name: string]: Mask };

/** What a policy carries from step to step; null without a memory. */
export type State = any;

export interface Options {
  actionMask?: Mask;
  /** Whether the observation is the first of an episode: then the state is reset. */
  isFirst?: boolean;
}

/** The distribution of an action as plain data; `kind` says which fields there are. */
export interface Shown {
  kind:
    | "categorical" // start, probabilities
    | "categoricals" // shape, start, probabilities: a row for each
    | "joint categorical" // shape, start, probabilities: of all combinations
    | "bins" // shape, probabilities, values: a row for each
    | "bernoulli" // shape, probabilities: of a one
    | "normal" // shape, mean, std, low, high
    | "squashed normal" // the same, before the squash
    | "beta" // shape, alpha, beta, low, high
    | "joint" // parts
    | "autoregressive"; // parts, given the modes of their parents
  [field: string]: any;
}

export interface Policy {
  readonly config: Config;
  readonly observationSpace: Config;
  readonly actionSpace: Config;
  /** SHA-256 of the config, in hexadecimal. */
  readonly fingerprint: string;
  readonly metadata: Record<string, string>;
  /** The axes of the population that the policy is a member of. */
  readonly batch: number[];
  /** How many observations of the self-test were replayed, and how far off the outputs were; null if left out. */
  readonly selfTest: { observations: number; deviation: number } | null;
  reset(): State;
  /** The mode, or a draw if there is a `random`, which gives numbers in [0, 1). */
  act(state: State, observation: Element, options?: Options & { random?: () => number }): [State, Action];
  value(state: State, observation: Element, options?: { isFirst?: boolean }): [State, number | Float64Array];
  distribution(state: State, observation: Element, options?: Options): [State, Shown];
}

export interface Info {
  config: Config;
  fingerprint: string;
  metadata: Record<string, string>;
  batch: number[];
  leaves: { path: string; dtype: string; shape: number[] }[];
}

export type Source = ArrayBuffer | ArrayBufferView | Blob | Response;

export interface LoadOptions {
  /** Which one of a population: an index, or one for each axis. */
  member?: number | number[];
  activations?: Record<string, (x: number) => number>;
  maskFunctions?: Record<string, (mask: Mask, parents: Record<string, Action>) => Mask>;
  /** The deviation allowed, relative to max(1, |x|), 1e-3 by default; false to leave it out. */
  selfTest?: number | false;
}

export function load(source: Source, options?: LoadOptions): Promise<Policy>;
export function inspect(source: Source): Promise<Info>;

/** Whatever is wrong with a file or an argument, in words. */
export class PolicyError extends Error {}

/** By the name of a class or function: add one of your own. */
export const ACTIVATIONS: Record<string, (x: number) => number>;
export const ENCODERS: Record<string, Function>;
export const NETWORKS: Record<string, Function>;
export const MEMORIES: Record<string, Function>;
export const HEADS: Record<string, Function>;
export const VALUES: Record<string, Function>;
export const POLICIES: Record<string, Function>;
