import { setMaxListeners } from 'node:events';
import {
  Client as GrpcClient, connectivityState, credentials, Metadata, type ServiceError,
} from '@grpc/grpc-js';
import { create, fromBinary, toBinary, type DescMessage, type MessageInitShape, type MessageShape } from '@bufbuild/protobuf';
import {
  SecretService, type BatchResolveResult, type ConnectionStatus, type ConnectionSpecSchema,
  type ResolveRequest, type ResolveRequestSchema, type TestConnectionResponse,
} from './gen/secretsidecar/v1/secret_service_pb.js';
import { BatchError, callError, closed, itemError, refused, SecretSidecarError, unreachable } from './errors.js';
import { NearCache } from './near.js';
import { copyAndFind, put } from './object.js';
import { storedReference } from './reference.js';
import { Secret } from './secret.js';
import { type Duration, duration, sleep } from './time.js';

const defaultSocket = '/run/secret-sidecar/sidecar.sock';
/** Longer than a connection's own timeout (10 s), so that the sidecar can say what is wrong with Vault. */
const defaultTimeout = 15_000;
const defaultWait = 10_000;
const defaultNearAge = 5_000;
/** How many references one BatchResolve takes. */
const maxBatch = 256;
/** How long a call waits after its connection broke. gRPC then waits for a new one. */
const pauseForSidecar = 50;
/** The longest reference that the sidecar takes, in bytes. */
const longestPath = 1024;
/** How far apart the reads of Vault are that refused values cause, for each secret. */
const readsApart = 1_000;

/** How a client is opened. Times are in milliseconds. */
export interface OpenOptions {
  /** The sidecar's socket, a path or unix:///path; SECRET_SIDECAR_SOCKET where it is not given. */
  socket?: string | undefined;
  /** How long open waits for the sidecar: 10,000. With 0 it does not wait, and the first call does. */
  wait?: number | undefined;
  /** Ends the wait; open then rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Keeps answers in this process. Off by default. */
  nearCache?: boolean | undefined;
  /** The longest time for which an answer is kept: 5,000. */
  nearMaxAge?: number | undefined;
}

/** What every call takes. */
export interface CallOptions {
  /** Bounds the call, retries included, in milliseconds: 15,000. */
  timeout?: number | undefined;
  /** Ends the call; it rejects with the signal's reason. Many calls may share one. */
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
  signal: AbortSignal | undefined;
}

/** One reference as it is asked for. Equal keys have one answer. */
interface Lookup {
  key: string;
  request: Exclude<MessageInitShape<typeof ResolveRequestSchema>, ResolveRequest>;
}

/** What became of one reference. Of several, only the values are looked at. */
type Outcome = { readonly value: string } | SecretSidecarError;

const isFailed = (outcome: Outcome | undefined): outcome is SecretSidecarError => outcome instanceof SecretSidecarError;

/**
 * Opens a client and waits until the sidecar takes its connection. Make one for a process, not one
 * for a call. It rejects with SIDECAR_UNREACHABLE when that takes longer than `wait`.
 */
export async function open(options: OpenOptions | string = {}): Promise<Client> {
  const given = typeof options === 'string' ? { socket: options } : options;
  const client = new Client(given);
  const wait = given.wait ?? defaultWait;
  if (wait > 0) await client.ready(wait, given.signal);
  return client;
}

/** Asks one sidecar. */
export class Client implements AsyncDisposable {
  readonly #grpc: GrpcClient;
  readonly #socket: string;
  readonly #near: NearCache | undefined;
  readonly #underWay = new Set<{ cancel(): void }>();
  #closed = false;

  /** @internal Use open. */
  constructor(options: OpenOptions) {
    this.#socket = socketPath(options.socket ?? process.env['SECRET_SIDECAR_SOCKET'] ?? '');
    this.#near = options.nearCache === true ? new NearCache(options.nearMaxAge ?? defaultNearAge) : undefined;
    this.#grpc = new GrpcClient(`unix:${this.#socket}`, credentials.createInsecure(), {
      'grpc.default_authority': 'localhost',
      // gRPC's own pauses grow to two minutes. A socket on the same machine costs nothing to try.
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 500,
      'grpc.max_receive_message_length': 8 << 20, // a secret may have 4 MiB
    });
  }

  /** @internal */
  async ready(wait: number, signal: AbortSignal | undefined): Promise<void> {
    try {
      await new Promise<void>((resolve, reject) => {
        const ends = onAbort(signal, () => reject(signal?.reason as Error));
        this.#grpc.waitForReady(Date.now() + wait, (error) => {
          ends();
          if (error === undefined) resolve();
          else reject(unreachable(this.#socket, error));
        });
      });
    } catch (error) {
      await this.close();
      throw error;
    }
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
    const values: [string, string][] = [];
    const failed = new Map<string, SecretSidecarError>();
    names.forEach((name, i) => {
      const outcome = outcomes[i] as Outcome;
      if (isFailed(outcome)) failed.set(name, outcome);
      else values.push([name, outcome.value]);
    });
    if (failed.size > 0) throw new BatchError(failed);
    return Object.fromEntries(values) as Record<Names, string>;
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
    const outcomes = await this.#all(slots.map(({ reference }) => reference), options, options.onError === 'keep');
    const failed = new Map<string, SecretSidecarError>();
    slots.forEach(({ holder, key, pointer }, i) => {
      const outcome = outcomes[i] as Outcome;
      if (isFailed(outcome)) failed.set(pointer, outcome);
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
    const requests = references.map((reference) => lookupOf(reference, mannerOf(options, undefined)).request);
    const limits = { deadline: Number.POSITIVE_INFINITY, signal: options.signal };
    for (let hasBegun = false;;) {
      limits.signal?.throwIfAborted();
      if (this.#closed) throw closed();
      const failed = yield* this.#watchOnce(references, requests, limits.signal, () => { hasBegun = true; });
      // A watch that has not begun would wait for its others to end, perhaps for ever.
      const isOverLimit = failed.reason === 'RATE_LIMITED' || failed.reason === 'OVERLOADED';
      if (!hasBegun && isOverLimit) throw failed;
      if (!await pause(failed.reason === 'SIDECAR_UNREACHABLE' ? pauseForSidecar : failed.retryAfter ?? 0, limits)) {
        limits.signal?.throwIfAborted();
        throw failed;
      }
    }
  }

  /** Yields what one stream brings, and returns why it has ended. */
  async *#watchOnce(
    references: string[], requests: Lookup['request'][], signal: AbortSignal | undefined, begin: () => void,
  ): AsyncGenerator<Change, SecretSidecarError, undefined> {
    const method = SecretService.method.watch;
    const stream = this.#grpc.makeServerStreamRequest(
      `/${SecretService.typeName}/${method.name}`,
      (message: MessageShape<typeof method.input>) => Buffer.from(toBinary(method.input, message)),
      (bytes: Buffer) => fromBinary(method.output, bytes),
      create(method.input, { requests }), new Metadata({ waitForReady: true }));
    stream.on('error', () => undefined); // the loop throws it too, unless it was left
    this.#underWay.add(stream);
    const ends = onAbort(signal, () => stream.cancel());
    try {
      for await (const { index, outcome } of stream as AsyncIterable<MessageShape<typeof method.output>>) {
        const reference = references[index];
        if (reference === undefined || outcome.case === undefined) continue;
        this.#near?.drop();
        begin();
        yield outcome.case === 'secret'
          ? { reference, secret: new Secret(outcome.value) }
          : { reference, error: itemError(outcome.value).of(reference) };
      }
      return unreachable(this.#socket, new Error('the stream has ended'));
    } catch (error) {
      signal?.throwIfAborted();
      if (this.#closed) throw closed();
      return callError(error as ServiceError, this.#isConnected(), this.#socket);
    } finally {
      ends();
      this.#underWay.delete(stream);
      stream.cancel();
    }
  }

  /** Drops secrets from the sidecar's cache and this client's. It returns how many the sidecar dropped. */
  async invalidate(what: Invalidation = {}): Promise<number> {
    const { connection, path } = targetOf(what);
    try {
      const answer = await this.#call(SecretService.method.invalidate, {
        connection, path, renewLogin: what.renewLogin ?? false,
      }, bounds(what));
      return answer.entries;
    } finally {
      this.#near?.drop(); // what was asked for in between may be older than the sidecar's drop
    }
  }

  /** Tests a connection. `ok` is false when a check failed; it rejects when the test could not be made. */
  async testConnection(what: ConnectionTest): Promise<TestConnectionResponse> {
    const { connection, path } = targetOf(what);
    const target = what.spec === undefined
      ? { case: 'connection' as const, value: connection }
      : { case: 'spec' as const, value: what.spec };
    return this.#call(SecretService.method.testConnection, { target, path } as never, bounds(what));
  }

  /** Returns the sidecar's connections and their state. */
  async connections(options: CallOptions = {}): Promise<ConnectionStatus[]> {
    return (await this.#call(SecretService.method.listConnections, {}, bounds(options))).connections;
  }

  /** Closes the connection. Calls that are under way fail. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#grpc.close();
    for (const call of this.#underWay) call.cancel();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #secret(reference: string, options: GetOptions, maxAge: number | undefined): Promise<Secret> {
    const lookup = lookupOf(reference, mannerOf(options, maxAge));
    options.signal?.throwIfAborted();
    if (this.#closed) throw closed();
    const kept = maxAge === undefined ? this.#near?.get(lookup.key) : undefined;
    if (kept !== undefined) return kept;
    const outcome = await this.#resolve(lookup, bounds(options));
    if (!isFailed(outcome)) return outcome;
    throw outcome.of(reference);
  }

  async #resolve(lookup: Lookup, limits: Bounds): Promise<Secret | SecretSidecarError> {
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

  /**
   * Looks references up, each distinct one once, and returns what became of each. A call that fails
   * as a whole rejects, unless each of its references is to have the failure.
   */
  async #all(references: string[], options: ReadOptions, each = false): Promise<Outcome[]> {
    const limits = bounds(options);
    limits.signal?.throwIfAborted();
    if (this.#closed) throw closed();
    const outcomes = new Map<string, Outcome | undefined>();
    const missing: Lookup[] = [];
    const manner = mannerOf(options, options.fresh === true ? 0 : undefined);
    const keys = references.map((reference) => {
      const lookup = attempt(() => lookupOf(reference, manner));
      if (lookup instanceof SecretSidecarError) return lookup;
      if (outcomes.has(lookup.key)) return lookup.key;
      const kept = options.fresh === true ? undefined : this.#near?.get(lookup.key);
      outcomes.set(lookup.key, kept);
      if (kept === undefined) missing.push(lookup);
      return lookup.key;
    });
    for (let i = 0; i < missing.length; i += maxBatch) {
      const some = missing.slice(i, i + maxBatch);
      try {
        await this.#batch(some, outcomes, limits);
      } catch (error) {
        if (!each || !(error instanceof SecretSidecarError)) throw error;
        for (const { key } of some) if (isFailed(outcomes.get(key) ?? error)) outcomes.set(key, error);
      }
    }
    return keys.map((key, i) => {
      const outcome = typeof key === 'string' ? outcomes.get(key) as Outcome : key;
      return isFailed(outcome) ? outcome.of(references[i] as string) : outcome;
    });
  }

  /**
   * Looks up to 256 references up, and those that failed for a moment again while there is time. One
   * that did not fit into the answer of a batch is asked for alone.
   */
  async #batch(lookups: Lookup[], outcomes: Map<string, Outcome | undefined>, limits: Bounds): Promise<void> {
    for (let wanted = lookups; wanted.length > 0;) {
      const generation = this.#near?.generation ?? 0;
      const answer = await this.#call(SecretService.method.batchResolve, { requests: wanted.map(({ request }) => request) }, limits);
      for (const [i, lookup] of wanted.entries()) {
        const outcome = this.#item(lookup, answer.results[i], generation);
        const didNotFit = isFailed(outcome) && outcome.reason === 'SECRET_TOO_LARGE' && wanted.length > 1;
        outcomes.set(lookup.key, didNotFit ? await this.#resolve(lookup, limits) : outcome);
      }
      const again = wanted.filter(({ key }) => leavesTime(retryAfter(outcomes.get(key)), limits));
      const wait = Math.max(0, ...again.map(({ key }) => retryAfter(outcomes.get(key))));
      if (again.length === 0 || !await pause(wait, limits)) return;
      wanted = again;
    }
  }

  /** Reads one item's answer. */
  #item(lookup: Lookup, result: BatchResolveResult | undefined, generation: number): Outcome {
    switch (result?.outcome.case) {
      case 'secret':
        this.#near?.keep(lookup.key, new Secret(result.outcome.value), generation);
        return result.outcome.value;
      case 'error':
        return itemError(result.outcome.value);
      default:
        return new SecretSidecarError({
          reason: '', message: 'the sidecar answered another batch than was asked for: are client and sidecar of one version?',
        });
    }
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
      limits.signal?.throwIfAborted();
      if (this.#closed) throw closed();
      try {
        return await this.#callOnce(method, request, limits);
      } catch (error) {
        limits.signal?.throwIfAborted();
        if (this.#closed) throw closed();
        const failed = callError(error as ServiceError, this.#isConnected(), this.#socket);
        if (!await pause(failed.reason === 'SIDECAR_UNREACHABLE' ? pauseForSidecar : failed.retryAfter ?? 0, limits)) {
          limits.signal?.throwIfAborted();
          throw failed;
        }
      }
    }
  }

  #isConnected(): boolean {
    return this.#grpc.getChannel().getConnectivityState(false) === connectivityState.READY;
  }

  #callOnce<I extends DescMessage, O extends DescMessage>(
    method: { input: I; output: O; name: string }, request: MessageInitShape<I>, limits: Bounds,
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      const call = this.#grpc.makeUnaryRequest(
        `/${SecretService.typeName}/${method.name}`,
        (message: MessageShape<I>) => bufferOf(toBinary(method.input, message)),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        create(method.input, request), new Metadata({ waitForReady: true }), { deadline: limits.deadline },
        (error, answer) => {
          ends();
          this.#underWay.delete(call);
          if (error !== null) return reject(error);
          resolve(answer as MessageShape<O>);
        });
      this.#underWay.add(call);
      const ends = onAbort(limits.signal, () => call.cancel());
    });
  }
}

/** The same bytes as a Buffer. */
const bufferOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function bounds(options: CallOptions): Bounds {
  return { deadline: Date.now() + (options.timeout ?? defaultTimeout), signal: options.signal };
}

/** Calls when the signal aborts, until the function that it returns is called. */
function onAbort(signal: AbortSignal | undefined, call: () => void): () => void {
  if (signal === undefined) return () => {};
  setMaxListeners(0, signal); // as many calls may share one as there are
  signal.addEventListener('abort', call);
  if (signal.aborted) call();
  return () => signal.removeEventListener('abort', call);
}

/** Waits, and up to a fifth longer. It reports false when there is nothing to wait for, or no time for it. */
async function pause(ms: number, limits: Bounds): Promise<boolean> {
  const wait = ms * (1 + Math.random() / 5);
  return leavesTime(wait, limits) && sleep(wait, limits.signal);
}

function leavesTime(wait: number, limits: Bounds): boolean {
  return wait > 0 && Date.now() + wait < limits.deadline;
}

/** How the references of one call are read: the options, with what is not given filled in. */
interface Manner {
  connection: string | undefined;
  project: string;
  key: string;
  version: number;
  maxAge: Duration | undefined;
  maxStale: Duration | undefined;
  inKey: string; // all that is part of a lookup's key
}

function mannerOf(options: GetOptions, maxAge: number | undefined): Manner {
  const { connection, project = '', key = '', version = 0, maxStale } = options;
  return {
    connection, project, key, version,
    maxAge: maxAge === undefined ? undefined : duration(maxAge),
    maxStale: maxStale === undefined ? undefined : duration(maxStale),
    inKey: JSON.stringify([project, key, version, maxStale]),
  };
}

/** Joins a reference, stored or not, and how it is read. */
function lookupOf(reference: string, manner: Manner): Lookup {
  const { connection, path } = place(reference, manner.connection);
  const { project: projectId, key, version, maxAge, maxStale } = manner;
  const request: Lookup['request'] = { connection, path, projectId, key, version };
  if (maxAge !== undefined) request.maxAge = maxAge;
  if (maxStale !== undefined) request.maxStale = maxStale;
  return { key: `${connection.length} ${connection} ${path.length} ${path} ${manner.inKey}`, request };
}

/** Says what invalidate and testConnection are about: a stored reference brings its connection. */
function targetOf({ connection, path }: { connection?: string | undefined; path?: string | undefined }): { connection: string; path: string } {
  return path === undefined || path === '' ? { connection: connection ?? '', path: '' } : place(path, connection);
}

/**
 * Says where a reference, stored or not, leads. It throws for one that the sidecar would refuse and
 * that gRPC would change or refuse together with the rest of its batch.
 */
function place(reference: string, named: string | undefined): { connection: string; path: string } {
  if (typeof reference !== 'string') throw new TypeError(`a reference is a string, not ${reference === null ? 'null' : typeof reference}`);
  const stored = storedReference(reference);
  if (stored?.connection === '') {
    throw refused('CONNECTION_REQUIRED', reference, 'the stored reference names no connection: it has to be {{connection|ap_sep_v1|path}}');
  }
  if (stored !== undefined && named !== undefined && named !== stored.connection) {
    throw refused('INVALID_REQUEST', reference, "the stored reference names another connection than the call: leave the call's out");
  }
  const { connection, path } = stored ?? { connection: named ?? '', path: reference };
  if (!isText(path) || !isText(connection)) {
    throw refused('INVALID_PATH', reference, 'the reference is no text: it holds half of a surrogate pair');
  }
  if (Buffer.byteLength(path) > longestPath || Buffer.byteLength(connection) > longestPath) {
    throw refused('INVALID_PATH', `${reference.slice(0, 64)}…`, `the reference is too long: it has at most ${longestPath} bytes`);
  }
  return { connection, path };
}

/** Whether a string is UTF-16 that UTF-8 can hold. */
const isText = (one: string): boolean => !/\p{Surrogate}/u.test(one);

function attempt<T>(make: () => T): T | SecretSidecarError {
  try {
    return make();
  } catch (error) {
    if (error instanceof SecretSidecarError) return error;
    throw error;
  }
}

const retryAfter = (outcome: Outcome | undefined): number =>
  isFailed(outcome) ? outcome.retryAfter ?? 0 : 0;

/** Returns the path in what a person writes as a socket. */
function socketPath(socket: string): string {
  if (socket === '') return defaultSocket;
  const path = socket.startsWith('unix://') ? socket.slice('unix://'.length) : socket.startsWith('unix:') ? socket.slice('unix:'.length) : socket;
  const isRelative = socket.startsWith('unix://') && !path.startsWith('/');
  if (path === '' || isRelative || path.includes('://')) {
    throw new TypeError(`the socket ${JSON.stringify(socket)} is not a Unix socket: write its path, or unix:///path`);
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
