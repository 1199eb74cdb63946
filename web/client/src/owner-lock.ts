/**
 * Detects tabs that are still open, with the Web Locks API. Each outbox owner holds a lock with its own name, and the
 * browser releases the lock when the tab closes or crashes. Without locks (pages without https) every other owner
 * counts as gone. Its events are then sent twice; the hub deduplicates them.
 */

/** Holds the lock of `owner` until the returned function is called. */
export function lockOwner(owner: string): () => void {
  let release!: () => void;
  const released = new Promise<void>((resolve) => (release = resolve));
  navigator.locks?.request(owner, () => released).catch(() => {});
  return release;
}

/** Returns the names of all locks that are held now. */
export async function liveOwners(): Promise<Set<string | undefined>> {
  const locks = await navigator.locks?.query().catch(() => {});
  return new Set(locks?.held?.map(({ name }) => name));
}
