import { vi } from "vitest";

/** Timeout of all waits, in ms. */
export const TIMEOUT = 20_000;

/** Repeats `check` until it does not throw. */
export function eventually<T>(check: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(check, { timeout: TIMEOUT, interval: 50 });
}
