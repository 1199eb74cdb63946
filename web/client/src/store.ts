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
  keys: () => attempt((storage) => Object.keys(storage)) ?? [],
  get: (key) => attempt((storage) => storage.getItem(key)),
  set: (key, text) => attempt((storage) => storage.setItem(key, text)),
  remove: (key) => attempt((storage) => storage.removeItem(key)),
};

function attempt<T>(action: (storage: Storage) => T): T | undefined {
  try {
    return action(localStorage);
  } catch {
    return undefined;
  }
}
