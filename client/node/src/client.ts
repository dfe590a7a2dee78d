import { Client as GrpcClient, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { create, fromBinary, toBinary, type DescMessage, type MessageInitShape, type MessageShape } from '@bufbuild/protobuf';
import {
  SecretService, type BatchResolveResult, type ConnectionStatus, type ConnectionSpecSchema,
  type ResolveRequestSchema, type TestConnectionResponse,
} from './gen/secretsidecar/v1/secret_service_pb.js';
import { BatchError, callError, itemError, SecretSidecarError, unreachable } from './errors.js';
import { NearCache } from './near.js';
import { copyAndFind, put } from './object.js';
import { storedReference } from './reference.js';
import { Secret } from './secret.js';
import { duration, sleep } from './time.js';

const defaultSocket = '/run/secret-sidecar/sidecar.sock';
/** Longer than a connection's own timeout (10 s), so that the sidecar can say what is wrong with Vault. */
const defaultTimeout = 15_000;
const defaultWait = 10_000;
const defaultNearAge = 5_000;
/** How many references one BatchResolve takes. */
const maxBatch = 256;
/** How long a call waits after its connection broke. gRPC then waits for a new one. */
const pauseForSidecar = 50;
/** How far apart the reads of Vault are that refused values cause, for each secret. */
const readsApart = 1_000;

/** How a client is opened. Times are in milliseconds. */
export interface OpenOptions {
  /** The sidecar's socket, a path or unix:///path; SECRET_SIDECAR_SOCKET where it is not given. */
  socket?: string | undefined;
  /** How long open waits for the sidecar: 10,000. With 0 it does not wait, and the first call does. */
  wait?: number | undefined;
  /** Keeps answers in this process. Off by default. */
  nearCache?: boolean | undefined;
  /** The longest time for which an answer is kept: 5,000. */
  nearMaxAge?: number | undefined;
}

/** What every call takes. */
export interface CallOptions {
  /** Bounds the call, retries included, in milliseconds: 15,000. */
  timeout?: number | undefined;
  /** Ends the call; it rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/** How a reference is read. */
export interface ReadOptions extends CallOptions {
  /** The connection of references that do not name their own; not needed while there is one alone. */
  connection?: string | undefined;
  /** The id of the project that asks, for connections that belong to projects. */
  project?: string | undefined;
  /** Reads Vault now, whatever is cached. */
  fresh?: boolean | undefined;
  /** Bounds what an outage may add to the age of a copy, in milliseconds; 0 takes no stale copy. */
  maxStale?: number | undefined;
}

/** How one reference is read. */
export interface GetOptions extends ReadOptions {
  /** The key in the secret, for keys that hold a slash. The reference is then the secret alone. */
  key?: string | undefined;
  /** One version of the secret; 0, as without it, is the latest. */
  version?: number | undefined;
}

/** How references are watched. */
export interface WatchOptions extends Omit<GetOptions, 'fresh' | 'timeout'> {}

/** One state of a watched reference: a secret, or why there is none now. */
export interface Change {
  /** The one that watch was given. */
  reference: string;
  secret?: Secret;
  /** Why there is no secret now. The watch goes on. */
  error?: SecretSidecarError;
}

/** How an object is resolved. */
export interface ResolveObjectOptions extends ReadOptions {
  /** What a failed reference does: 'throw' (the default) rejects, 'keep' leaves it in the object. */
  onError?: 'throw' | 'keep' | undefined;
  /** With 'keep': called once with what failed, if anything did. */
  onFailed?: ((error: BatchError) => void) | undefined;
}

/** How use reads a reference and looks at what the call returned. */
export interface UseOptions<T> extends GetOptions {
  /** Whether the call says that the value was refused. By default a status of 401, of either, says so. */
  refused?: ((outcome: { result?: T; error?: unknown }) => boolean) | undefined;
}

/** What invalidate drops; nothing given drops everything. */
export interface Invalidation extends CallOptions {
  /** The connection whose secrets are dropped; all of them where it is not given. */
  connection?: string | undefined;
  /** A reference, whose secret is dropped in all versions, or a prefix that ends in "/". */
  path?: string | undefined;
  /** Makes the connection log in to Vault again. */
  renewLogin?: boolean | undefined;
}

/** What testConnection tests: a connection of the sidecar's by name, or one that it does not have. */
export interface ConnectionTest extends CallOptions {
  connection?: string | undefined;
  spec?: MessageInitShape<typeof ConnectionSpecSchema> | undefined;
  /** A reference to try as well. */
  path?: string | undefined;
}

/** The times and the signal of one call as a whole. */
interface Bounds {
  deadline: number;
  signal: AbortSignal;
}

/** One reference as it is asked for. Equal keys have one answer. */
interface Lookup {
  key: string;
  request: MessageInitShape<typeof ResolveRequestSchema>;
}

type Outcome = Secret | SecretSidecarError;

/**
 * Opens a client and waits until the sidecar takes its connection. Make one for a process, not one
 * for a call. It rejects with SIDECAR_UNREACHABLE when that takes longer than `wait`.
 */
export async function open(options: OpenOptions | string = {}): Promise<Client> {
  const given = typeof options === 'string' ? { socket: options } : options;
  const client = new Client(given);
  const wait = given.wait ?? defaultWait;
  if (wait > 0) await client.ready(wait);
  return client;
}

/** Asks one sidecar. */
export class Client implements AsyncDisposable {
  readonly #grpc: GrpcClient;
  readonly #socket: string;
  readonly #near: NearCache | undefined;

  /** @internal Use open. */
  constructor(options: OpenOptions) {
    this.#socket = socketPath(options.socket ?? process.env['SECRET_SIDECAR_SOCKET'] ?? '');
    this.#near = options.nearCache === true ? new NearCache(options.nearMaxAge ?? defaultNearAge) : undefined;
    this.#grpc = new GrpcClient(`unix:${this.#socket}`, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost',
      // gRPC's own pauses grow to two minutes. A socket on the same machine costs nothing to try.
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 750,
      'grpc.max_receive_message_length': 8 << 20, // a secret may have 4 MiB
    });
  }

  /** @internal */
  async ready(wait: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#grpc.waitForReady(Date.now() + wait, (error) => {
        if (error === undefined) return resolve();
        this.#grpc.close();
        reject(unreachable(this.#socket, error));
      });
    });
  }

  /** Returns the value of a reference, as the sidecar takes it or as a platform stores it. */
  async get(reference: string, options: GetOptions = {}): Promise<string> {
    return (await this.getSecret(reference, options)).value;
  }

  /** Returns the value of a reference and what the sidecar knows of it. */
  async getSecret(reference: string, options: GetOptions = {}): Promise<Secret> {
    return this.#secret(reference, options, options.fresh === true ? 0 : undefined);
  }

  /**
   * Returns the values of several references under the names that they have in the object. It asks
   * for each distinct reference once, 256 at a time. When any fails it rejects with a BatchError that
   * names each that did.
   */
  async getAll<Names extends string>(references: Record<Names, string>, options: ReadOptions = {}): Promise<Record<Names, string>> {
    const names = Object.keys(references) as Names[];
    const outcomes = await this.#all(names.map((name) => references[name]), options);
    const values = Object.create(null) as Record<Names, string>;
    const failed = new Map<string, SecretSidecarError>();
    names.forEach((name, i) => {
      const outcome = outcomes[i] as Outcome;
      if (outcome instanceof Secret) values[name] = outcome.value;
      else failed.set(name, outcome);
    });
    if (failed.size > 0) throw new BatchError(failed);
    return { ...values };
  }

  /**
   * Returns a copy of a JSON-like value in which each stored reference is replaced by its secret. A
   * stored reference is a string that is exactly `{{connection|ap_sep_v1|path}}`, blanks around it
   * allowed. Objects and arrays are copied; every other string and every other value, a Date or a
   * Buffer for example, comes back as it is. A value that holds itself is a TypeError.
   */
  async resolveObject<T>(value: T, options: ResolveObjectOptions = {}): Promise<T> {
    const { copy, slots } = copyAndFind(value);
    const top = { copy };
    const outcomes = await this.#all(slots.map(({ reference }) => reference), options);
    const failed = new Map<string, SecretSidecarError>();
    slots.forEach(({ holder, key, pointer }, i) => {
      const outcome = outcomes[i] as Outcome;
      if (!(outcome instanceof Secret)) failed.set(pointer, outcome);
      else if (pointer === '') top.copy = outcome.value;
      else put(holder, key, outcome.value);
    });
    if (failed.size > 0) {
      const error = new BatchError(failed);
      if (options.onError !== 'keep') throw error;
      options.onFailed?.(error);
    }
    return top.copy as T;
  }

  /**
   * Calls with the value of a reference. If the call says that the value was refused, use asks for a
   * fresh one and, if the secret has changed, calls once more. So a secret that is rotated while
   * flows run costs no failed call. By default a status of 401 says so: `status` of what the call
   * returns, or `status`, `statusCode` or `response.status` of what it throws.
   *
   * Many callers whose values are refused at once share one read of Vault for each secret and second.
   */
  async use<T>(
    reference: string, call: (value: string, context: { signal?: AbortSignal }) => Promise<T> | T, options: UseOptions<T> = {},
  ): Promise<T> {
    const context = options.signal === undefined ? {} : { signal: options.signal };
    const refused = options.refused ?? refusedByStatus;
    const secret = await this.getSecret(reference, options);
    const first = await outcomeOf(() => call(secret.value, context));
    if (!refused(first)) return first.get();
    const next = await this.#changed(secret, reference, options);
    if (next === undefined) return first.get();
    await first.discard();
    return call(next.value, context);
  }

  /**
   * Yields the present state of each reference, at most 256 of them, and then each change, until the
   * signal aborts or the loop is left. It goes on when the sidecar restarts, and yields each state
   * again then. A slow loop gets the latest state of each. A change drops the near cache.
   */
  async *watch(references: string[], options: WatchOptions = {}): AsyncGenerator<Change, void, undefined> {
    const requests = references.map((reference) => lookupOf(reference, options, undefined).request);
    const limits = { deadline: Number.POSITIVE_INFINITY, signal: options.signal ?? never };
    for (;;) {
      limits.signal.throwIfAborted();
      const failed = yield* this.#watchOnce(references, requests, limits.signal);
      if (!await pause(failed.reason === 'SIDECAR_UNREACHABLE' ? pauseForSidecar : failed.retryAfter ?? 0, limits)) {
        limits.signal.throwIfAborted();
        throw failed;
      }
    }
  }

  /** Yields what one stream brings, and returns why it has ended. */
  async *#watchOnce(
    references: string[], requests: Lookup['request'][], signal: AbortSignal,
  ): AsyncGenerator<Change, SecretSidecarError, undefined> {
    const method = SecretService.method.watch;
    const stream = this.#grpc.makeServerStreamRequest(
      `/${SecretService.typeName}/${method.name}`,
      (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
      (bytes: Buffer) => fromBinary(method.output, bytes),
      create(method.input, { requests }), new Metadata({ waitForReady: true }));
    const cancel = (): void => stream.cancel();
    stream.on('error', () => undefined); // the loop throws it too, unless it was left
    signal.addEventListener('abort', cancel);
    try {
      for await (const { index, outcome } of stream as AsyncIterable<MessageShape<typeof method.output>>) {
        const reference = references[index];
        if (reference === undefined || outcome.case === undefined) continue;
        this.#near?.drop();
        yield outcome.case === 'secret'
          ? { reference, secret: new Secret(outcome.value) }
          : { reference, error: itemError(outcome.value).of(reference) };
      }
      return unreachable(this.#socket, new Error('the stream has ended'));
    } catch (error) {
      signal.throwIfAborted();
      return callError(error as ServiceError, this.#socket);
    } finally {
      signal.removeEventListener('abort', cancel);
      stream.cancel();
    }
  }

  /** Drops secrets from the sidecar's cache and this client's. It returns how many the sidecar dropped. */
  async invalidate(what: Invalidation = {}): Promise<number> {
    const stored = storedReference(what.path ?? '');
    try {
      const answer = await this.#call(SecretService.method.invalidate, {
        connection: stored?.connection ?? what.connection ?? '', path: stored?.path ?? what.path ?? '',
        renewLogin: what.renewLogin ?? false,
      }, bounds(what));
      return answer.entries;
    } finally {
      this.#near?.drop(); // what was asked for in between may be older than the sidecar's drop
    }
  }

  /** Tests a connection. `ok` is false when a check failed; it rejects when the test could not be made. */
  async testConnection(what: ConnectionTest): Promise<TestConnectionResponse> {
    const target = what.spec === undefined
      ? { case: 'connection' as const, value: what.connection ?? '' }
      : { case: 'spec' as const, value: what.spec };
    return this.#call(SecretService.method.testConnection, { target, path: what.path ?? '' } as never, bounds(what));
  }

  /** Returns the sidecar's connections and their state. */
  async connections(options: CallOptions = {}): Promise<ConnectionStatus[]> {
    return (await this.#call(SecretService.method.listConnections, {}, bounds(options))).connections;
  }

  /** Closes the connection. Calls that are under way fail. */
  async close(): Promise<void> {
    this.#grpc.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #secret(reference: string, options: GetOptions, maxAge: number | undefined): Promise<Secret> {
    const lookup = lookupOf(reference, options, maxAge);
    const kept = maxAge === undefined ? this.#near?.get(lookup.key) : undefined;
    if (kept !== undefined) return kept;
    const outcome = await this.#resolve(lookup, bounds(options));
    if (outcome instanceof Secret) return outcome;
    throw outcome.of(reference);
  }

  async #resolve(lookup: Lookup, limits: Bounds): Promise<Outcome> {
    const generation = this.#near?.generation ?? 0;
    try {
      const secret = new Secret(await this.#call(SecretService.method.resolve, lookup.request, limits));
      this.#near?.keep(lookup.key, secret, generation);
      return secret;
    } catch (error) {
      if (error instanceof SecretSidecarError) return error;
      throw error;
    }
  }

  /** Looks references up, each distinct one once, and returns what became of each. */
  async #all(references: string[], options: ReadOptions): Promise<Outcome[]> {
    const limits = bounds(options);
    const outcomes = new Map<string, Outcome>();
    const missing: Lookup[] = [];
    const keys = references.map((reference) => {
      const lookup = attempt(() => lookupOf(reference, options, options.fresh === true ? 0 : undefined));
      if (lookup instanceof SecretSidecarError) return lookup;
      if (outcomes.has(lookup.key)) return lookup.key;
      const kept = options.fresh === true ? undefined : this.#near?.get(lookup.key);
      outcomes.set(lookup.key, kept ?? new SecretSidecarError({ reason: '', message: 'not asked for yet' }));
      if (kept === undefined) missing.push(lookup);
      return lookup.key;
    });
    for (let i = 0; i < missing.length; i += maxBatch) {
      await this.#batch(missing.slice(i, i + maxBatch), outcomes, limits);
    }
    return keys.map((key, i) => {
      const outcome = typeof key === 'string' ? outcomes.get(key) as Outcome : key;
      return outcome instanceof Secret ? outcome : outcome.of(references[i] as string);
    });
  }

  /** Looks up to 256 references up, and those that failed for a moment again while there is time. */
  async #batch(lookups: Lookup[], outcomes: Map<string, Outcome>, limits: Bounds): Promise<void> {
    for (let wanted = lookups; wanted.length > 0;) {
      const generation = this.#near?.generation ?? 0;
      const answer = await this.#call(SecretService.method.batchResolve, { requests: wanted.map(({ request }) => request) }, limits);
      for (const [i, lookup] of wanted.entries()) {
        outcomes.set(lookup.key, await this.#item(lookup, answer.results[i], wanted.length, generation, limits));
      }
      const again = wanted.filter(({ key }) => retryAfter(outcomes.get(key)) > 0);
      const wait = Math.max(0, ...again.map(({ key }) => retryAfter(outcomes.get(key))));
      if (again.length === 0 || !await pause(wait, limits)) return;
      wanted = again;
    }
  }

  /** Reads one item's answer. One that did not fit into the answer of a batch is asked for alone. */
  async #item(
    lookup: Lookup, result: BatchResolveResult | undefined, of: number, generation: number, limits: Bounds,
  ): Promise<Outcome> {
    if (result?.outcome.case === 'secret') {
      const secret = new Secret(result.outcome.value);
      this.#near?.keep(lookup.key, secret, generation);
      return secret;
    }
    if (result?.outcome.case !== 'error') {
      return new SecretSidecarError({ reason: '', message: 'the sidecar answered another batch than was asked for: are client and sidecar of one version?' });
    }
    if (result.outcome.value.reason === 'SECRET_TOO_LARGE' && of > 1) return this.#resolve(lookup, limits);
    return itemError(result.outcome.value);
  }

  /** Returns the secret as it is after a version of it was refused; undefined when it has not changed. */
  async #changed(refused: Secret, reference: string, options: GetOptions): Promise<Secret | undefined> {
    const now = Date.now();
    const limits = bounds(options);
    for (;;) {
      let next: Secret;
      try {
        next = await this.#secret(reference, { ...options, timeout: limits.deadline - Date.now() }, readsApart);
      } catch (error) {
        if (error instanceof SecretSidecarError) return undefined;
        throw error;
      }
      if (next.source === 'STALE') return undefined;
      if (next.version !== refused.version || next.value !== refused.value) return next;
      if (next.fetchedAt.getTime() > now) return undefined;
      // Somebody has just had it read, perhaps before it changed. The next read is due soon.
      const due = next.fetchedAt.getTime() + readsApart - Date.now();
      if (!await pause(Math.max(due, 1), limits)) return undefined;
    }
  }

  /** Calls until an answer says that no other would be better, or no time is left for another. */
  async #call<I extends DescMessage, O extends DescMessage>(
    method: { input: I; output: O; name: string }, request: MessageInitShape<I>, limits: Bounds,
  ): Promise<MessageShape<O>> {
    for (;;) {
      limits.signal.throwIfAborted();
      try {
        return await this.#callOnce(method, request, limits);
      } catch (error) {
        limits.signal.throwIfAborted();
        const failed = callError(error as ServiceError, this.#socket);
        if (!await pause(failed.reason === 'SIDECAR_UNREACHABLE' ? pauseForSidecar : failed.retryAfter ?? 0, limits)) {
          limits.signal.throwIfAborted();
          throw failed;
        }
      }
    }
  }

  #callOnce<I extends DescMessage, O extends DescMessage>(
    method: { input: I; output: O; name: string }, request: MessageInitShape<I>, limits: Bounds,
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      const call = this.#grpc.makeUnaryRequest(
        `/${SecretService.typeName}/${method.name}`,
        (message: MessageShape<I>) => Buffer.from(toBinary(method.input, message)),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        create(method.input, request), new Metadata({ waitForReady: true }), { deadline: limits.deadline },
        (error, answer) => {
          limits.signal.removeEventListener('abort', cancel);
          if (error !== null) return reject(error);
          resolve(answer as MessageShape<O>);
        });
      const cancel = (): void => call.cancel();
      limits.signal.addEventListener('abort', cancel);
    });
  }
}

const never = new AbortController().signal;

function bounds(options: CallOptions): Bounds {
  return { deadline: Date.now() + (options.timeout ?? defaultTimeout), signal: options.signal ?? never };
}

/** Waits, and up to a fifth longer. It reports false when there is nothing to wait for, or no time for it. */
async function pause(ms: number, limits: Bounds): Promise<boolean> {
  const wait = ms * (1 + Math.random() / 5);
  if (ms <= 0 || Date.now() + wait >= limits.deadline) return false;
  return sleep(wait, limits.signal);
}

/** Joins a reference, stored or not, and the options. */
function lookupOf(reference: string, options: GetOptions, maxAge: number | undefined): Lookup {
  const stored = storedReference(reference);
  if (stored?.connection === '') {
    throw new SecretSidecarError({
      reason: 'CONNECTION_REQUIRED', reference,
      message: 'the stored reference names no connection: it has to be {{connection|ap_sep_v1|path}}',
    });
  }
  if (stored !== undefined && options.connection !== undefined && options.connection !== stored.connection) {
    throw new SecretSidecarError({
      reason: 'INVALID_REQUEST', reference,
      message: "the stored reference names another connection than the call: leave the call's out",
    });
  }
  const connection = stored?.connection ?? options.connection ?? '';
  const path = stored?.path ?? reference;
  const { project = '', key = '', version = 0, maxStale } = options;
  return {
    key: JSON.stringify([connection, path, project, key, version, maxStale]),
    request: {
      connection, path, projectId: project, key, version,
      ...(maxAge === undefined ? {} : { maxAge: duration(maxAge) }),
      ...(maxStale === undefined ? {} : { maxStale: duration(maxStale) }),
    },
  };
}

function attempt<T>(make: () => T): T | SecretSidecarError {
  try {
    return make();
  } catch (error) {
    if (error instanceof SecretSidecarError) return error;
    throw error;
  }
}

const retryAfter = (outcome: Outcome | undefined): number =>
  outcome instanceof SecretSidecarError ? outcome.retryAfter ?? 0 : 0;

/** Returns the path in what a person writes as a socket. */
function socketPath(socket: string): string {
  if (socket === '') return defaultSocket;
  const path = socket.startsWith('unix://') ? socket.slice('unix://'.length) : socket.startsWith('unix:') ? socket.slice('unix:'.length) : socket;
  const isRelative = socket.startsWith('unix://') && !path.startsWith('/');
  if (path === '' || isRelative || path.includes('://')) {
    throw new TypeError(`the socket ${JSON.stringify(socket)} is no Unix socket: write its path, or unix:///path`);
  }
  return path;
}

interface CallOutcome<T> {
  result?: T;
  error?: unknown;
  get(): T;
  discard(): Promise<void>;
}

async function outcomeOf<T>(call: () => Promise<T> | T): Promise<CallOutcome<T>> {
  try {
    const result = await call();
    return { result, get: () => result, discard: () => discard(result) };
  } catch (error) {
    return { error, get: () => { throw error; }, discard: async () => {} };
  }
}

/** Gives the connection of a fetch response back. */
async function discard(result: unknown): Promise<void> {
  const body: unknown = typeof result === 'object' && result !== null ? (result as { body?: unknown }).body : undefined;
  if (body instanceof ReadableStream && !body.locked) await body.cancel().catch(() => {});
}

function refusedByStatus({ result, error }: { result?: unknown; error?: unknown }): boolean {
  return hasStatus401(result) || hasStatus401(error) || hasStatus401((error as { response?: unknown } | undefined)?.response);
}

function hasStatus401(one: unknown): boolean {
  if (typeof one !== 'object' || one === null) return false;
  const { status, statusCode } = one as { status?: unknown; statusCode?: unknown };
  return status === 401 || statusCode === 401;
}
