/**
 * Who is alive, among all tabs: an owner holds a lock of its own name, and the browser frees it when the
 * tab dies, however it dies. Without locks (pages without https) everybody passes for dead, and what
 * they have left is sent twice, which does no harm.
 */

/** Shows that `owner` is alive, until the returned function is called. */
export function showAlive(owner: string): () => void {
  let release!: () => void;
  const dead = new Promise<void>((resolve) => (release = resolve));
  navigator.locks?.request(owner, () => dead).catch(() => {});
  return release;
}

export async function whoIsAlive(): Promise<Set<string | undefined>> {
  const locks = await navigator.locks?.query().catch(() => {});
  return new Set(locks?.held?.map(({ name }) => name));
}
