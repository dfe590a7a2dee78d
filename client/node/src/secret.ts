import { inspect } from 'node:util';
import { Source as ProtoSource, ValueType, type ResolveResponse } from './gen/secretsidecar/v1/secret_service_pb.js';
import { date } from './time.js';

/** Where a value comes from: Vault, the sidecar's cache, or an older copy because Vault is out. */
export type Source = 'VAULT' | 'CACHE' | 'STALE';

/**
 * One value. Printed, inspected, cloned or turned into JSON it shows everything but the value; only
 * its field `value` is the secret.
 */
export class Secret {
  readonly #value: string;
  /** Whether the value is JSON text, because the secret holds no string there. */
  readonly isJSON: boolean;
  /** The secret's version in Vault. */
  readonly version: number;
  /** When this version was written. */
  readonly createdAt: Date | undefined;
  /** When the read of Vault began that brought the value. */
  readonly fetchedAt: Date;
  /** When the sidecar's copy stops being fresh. */
  readonly expiresAt: Date;
  readonly source: Source;

  /** @internal */
  constructor(answer: ResolveResponse) {
    this.#value = answer.value;
    this.isJSON = answer.valueType === ValueType.JSON;
    this.version = answer.version;
    this.createdAt = date(answer.versionCreatedAt);
    this.fetchedAt = date(answer.fetchedAt) ?? new Date(0);
    this.expiresAt = date(answer.expiresAt) ?? new Date(0);
    this.source = ProtoSource[answer.source] as Source;
    Object.freeze(this);
  }

  /** The secret itself. */
  get value(): string {
    return this.#value;
  }

  toString(): string {
    return `[secret, version ${this.version}, from ${this.source} at ${this.fetchedAt.toISOString()}]`;
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }
}
