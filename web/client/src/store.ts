/**
 * A key-value store in the browser. If storage is missing, forbidden or full, it stores nothing and throws nothing;
 * the page then has its memory only.
 */
export interface Store {
  keys(): string[];
  get(key: string): string | null | undefined;
  set(key: string, text: string): void;
  remove(key: string): void;
}

export const browserStore: Store = {
  keys: () => attempt(() => Object.keys(localStorage)) ?? [],
  get: (key) => attempt(() => localStorage.getItem(key)),
  set: (key, text) => attempt(() => localStorage.setItem(key, text)),
  remove: (key) => attempt(() => localStorage.removeItem(key)),
};

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}
