import { status as grpcStatus, type Metadata, type ServiceError } from '@grpc/grpc-js';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import type { ResolveError } from './gen/secretsidecar/v1/secret_service_pb.js';
import { milliseconds } from './time.js';

/** One faulty field of a request. */
export interface Violation {
  field: string;
  description: string;
}

interface Details {
  reason: string;
  message: string;
  reference?: string;
  retryAfter?: number;
  violations?: Violation[];
  cause?: unknown;
}

/**
 * Why a call failed. It never holds a secret.
 *
 * `reason` is one of docs/errors.md, `SIDECAR_UNREACHABLE` when no sidecar took the call in time,
 * `DEADLINE_EXCEEDED` when none answered in time, and empty for what gRPC itself refused.
 */
export class SecretSidecarError extends Error {
  override readonly name: string = 'SecretSidecarError';
  /** One of docs/errors.md, or `SIDECAR_UNREACHABLE`. */
  readonly reason: string;
  /** The reference that failed; undefined when the call as a whole failed. */
  readonly reference: string | undefined;
  /** Milliseconds after which the same call may succeed; undefined when it will not by itself. */
  readonly retryAfter: number | undefined;
  /** The faulty fields of an INVALID_REQUEST or INVALID_PATH. */
  readonly violations: readonly Violation[];

  /** @internal */
  constructor(details: Details) {
    const of = details.reference === undefined ? '' : `resolve ${details.reference}: `;
    super(`${of}${details.reason === '' ? '' : `${details.reason}: `}${details.message}`,
      details.cause === undefined ? undefined : { cause: details.cause });
    this.reason = details.reason;
    this.reference = details.reference;
    this.retryAfter = details.retryAfter;
    this.violations = details.violations ?? [];
    this.#message = details.message;
  }

  readonly #message: string;

  /** @internal The same error of one reference. */
  of(reference: string): SecretSidecarError {
    const { reason, retryAfter, violations, cause } = this;
    return new SecretSidecarError({
      reason, message: this.#message, reference, violations: [...violations], cause,
      ...(retryAfter === undefined ? {} : { retryAfter }),
    });
  }
}

/**
 * Says which of several references failed. Its own reason is theirs where they have one alone, and
 * empty otherwise; retryAfter is when all of them may succeed.
 */
export class BatchError extends SecretSidecarError {
  override readonly name: string = 'BatchError';
  /**
   * The errors, under the names that getAll was given, or under the place in the object of
   * resolveObject as a JSON pointer (RFC 6901).
   */
  readonly failed: ReadonlyMap<string, SecretSidecarError>;

  /** @internal */
  constructor(failed: ReadonlyMap<string, SecretSidecarError>) {
    const lines = [...failed].map(([name, error]) => `${name}: ${error.message}`);
    const reasons = new Set([...failed.values()].map(({ reason }) => reason));
    const waits = [...failed.values()].map(({ retryAfter }) => retryAfter);
    const waited = waits.filter((wait) => wait !== undefined);
    super({
      reason: reasons.size === 1 ? [...reasons][0] as string : '',
      message: `${failed.size} of the references failed: ${lines.join('; ')}`,
      ...(waits.length === waited.length ? { retryAfter: Math.max(...waited) } : {}),
    });
    this.failed = failed;
  }
}

/** Translates what a batch says of one item. */
export function itemError(said: ResolveError): SecretSidecarError {
  const retryAfter = said.retryDelay && milliseconds(said.retryDelay);
  return new SecretSidecarError({
    reason: said.reason, message: said.message, ...(retryAfter === undefined ? {} : { retryAfter }),
  });
}

/** Translates the error of a call. The socket is named where no sidecar answered. */
export function callError(error: ServiceError, connected: boolean, socket: string): SecretSidecarError {
  const details = detailsOf(error.metadata);
  if (details.reason !== '') return new SecretSidecarError({ ...details, message: error.details, cause: error });
  // grpc-js has no code for "nobody took the call": it waits for a connection until the deadline.
  const waited = error.code === grpcStatus.DEADLINE_EXCEEDED && !connected;
  if (error.code === grpcStatus.UNAVAILABLE || waited) return unreachable(socket, error);
  if (error.code === grpcStatus.DEADLINE_EXCEEDED) {
    return new SecretSidecarError({
      reason: 'DEADLINE_EXCEEDED', cause: error,
      message: "the sidecar did not answer in time: give the call more time, or look at the sidecar's log",
    });
  }
  return new SecretSidecarError({ reason: '', message: error.details, cause: error });
}

/** The error of a client that was closed. */
export function closed(): SecretSidecarError {
  return new SecretSidecarError({ reason: '', message: 'the client is closed: open another one' });
}

/** An error that no sidecar was needed for. */
export function refused(reason: string, reference: string, message: string): SecretSidecarError {
  return new SecretSidecarError({ reason, reference, message });
}

export function unreachable(socket: string, cause?: unknown): SecretSidecarError {
  return new SecretSidecarError({
    reason: 'SIDECAR_UNREACHABLE', cause,
    message: `no sidecar answers at ${socket}: start it, or name its socket in SECRET_SIDECAR_SOCKET`,
  });
}

// What follows reads google.rpc.Status and the three details that the sidecar sends
// (https://cloud.google.com/apis/design/errors#error_model), field by field.

function detailsOf(metadata: Metadata | undefined): Omit<Details, 'message'> {
  const found: Omit<Details, 'message'> = { reason: '' };
  const binary = metadata?.get('grpc-status-details-bin')[0];
  if (!(binary instanceof Uint8Array)) return found;
  each(binary, (number, value) => {
    if (number === 3 && value instanceof Uint8Array) readDetail(value, found);
  });
  return found;
}

function readDetail(any: Uint8Array, found: Omit<Details, 'message'>): void {
  let type = '';
  let body: Uint8Array = new Uint8Array();
  each(any, (number, value) => {
    if (number === 1 && value instanceof Uint8Array) type = text(value);
    if (number === 2 && value instanceof Uint8Array) body = value;
  });
  switch (type.slice(type.lastIndexOf('/') + 1)) {
    case 'google.rpc.ErrorInfo':
      each(body, (number, value) => {
        if (number === 1 && value instanceof Uint8Array) found.reason = text(value);
      });
      return;
    case 'google.rpc.RetryInfo':
      each(body, (number, value) => {
        if (number === 1 && value instanceof Uint8Array) found.retryAfter = durationOf(value);
      });
      return;
    case 'google.rpc.BadRequest':
      found.violations = [];
      each(body, (number, value) => {
        if (number === 1 && value instanceof Uint8Array) found.violations?.push(violationOf(value));
      });
  }
}

function durationOf(message: Uint8Array): number {
  let total = 0;
  each(message, (number, value) => {
    if (value instanceof Uint8Array) return;
    if (number === 1) total += Number(value) * 1000;
    if (number === 2) total += Number(value) / 1e6;
  });
  return total;
}

function violationOf(message: Uint8Array): Violation {
  const violation = { field: '', description: '' };
  each(message, (number, value) => {
    if (!(value instanceof Uint8Array)) return;
    if (number === 1) violation.field = text(value);
    if (number === 2) violation.description = text(value);
  });
  return violation;
}

const decoder = new TextDecoder();
const text = (bytes: Uint8Array): string => decoder.decode(bytes);

/** Calls with every field of a message that is a number or of bytes. */
function each(message: Uint8Array, call: (number: number, value: Uint8Array | bigint | string) => void): void {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag();
    if (type === WireType.LengthDelimited) call(number, reader.bytes());
    else if (type === WireType.Varint) call(number, reader.int64());
    else reader.skip(type, number);
  }
}
