import { vi } from "vitest";

/** Long enough for the slowest machine, short enough to find out. */
export const PATIENCE = 20_000;

/** Asks again and again until `check` throws no more. */
export function eventually<T>(check: () => T | Promise<T>): Promise<T> {
  return vi.waitFor(check, { timeout: PATIENCE, interval: 50 });
}
