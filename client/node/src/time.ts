import { create } from '@bufbuild/protobuf';
import { DurationSchema, type Duration, type Timestamp, timestampDate } from '@bufbuild/protobuf/wkt';

export type { Duration };

/** A duration in milliseconds as protobuf writes it. */
export function duration(ms: number): Duration {
  const seconds = Math.floor(ms / 1000);
  return create(DurationSchema, { seconds: BigInt(seconds), nanos: Math.round((ms - seconds * 1000) * 1e6) });
}

export function milliseconds(d: Duration): number {
  return Number(d.seconds) * 1000 + d.nanos / 1e6;
}

export function date(at: Timestamp | undefined): Date | undefined {
  return at && timestampDate(at);
}

/** Waits, and ends early with the signal. It reports whether the time has passed. */
export function sleep(ms: number, signal: AbortSignal | undefined): Promise<boolean> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) return resolve(false);
    const timer = setTimeout(() => end(true), ms);
    const end = (passed: boolean): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', aborted);
      resolve(passed);
    };
    const aborted = (): void => end(false);
    signal?.addEventListener('abort', aborted);
  });
}
