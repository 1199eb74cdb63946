/**
 * What the browser keeps for this site. Storage that is missing, forbidden or full keeps nothing and
 * throws nothing: then a page has its memory only.
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
