import type { Secret } from './secret.js';

/** How many answers are kept. */
const most = 10_000;

interface Kept {
  secret: Secret;
  until: number; // by performance.now(), which nobody sets
  wall: number; // by the wall clock, which goes on while a machine sleeps
}

/** Keeps answers in this process. */
export class NearCache {
  readonly #maxAge: number;
  readonly #kept = new Map<string, Kept>(); // the eldest first
  #dropped = 0;

  constructor(maxAge: number) {
    this.#maxAge = maxAge;
  }

  get(key: string): Secret | undefined {
    const one = this.#kept.get(key);
    return one !== undefined && performance.now() < one.until && Date.now() < one.wall ? one.secret : undefined;
  }

  /** What keep wants to know of an answer: when it was asked for. */
  get generation(): number {
    return this.#dropped;
  }

  /** Keeps an answer, unless something was dropped since it was asked for, or it is stale. */
  keep(key: string, secret: Secret, generation: number): void {
    if (generation !== this.#dropped || secret.source === 'STALE') return;
    const now = Date.now();
    const left = Math.min(this.#maxAge, secret.expiresAt.getTime() - now);
    this.#kept.delete(key);
    this.#kept.set(key, { secret, until: performance.now() + left, wall: now + left });
    if (this.#kept.size > most) this.#kept.delete(this.#kept.keys().next().value as string);
  }

  drop(): void {
    this.#dropped++;
    this.#kept.clear();
  }
}
