/** One timer that can be set again. */

/** setTimeout's limit, in ms. */
const LIMIT = 2 ** 31 - 1;

export interface Timer {
  /** Calls `action` after `ms`, but at the latest after 24 days, instead of what was set before. */
  set(ms: number, action: () => void): void;
  clear(): void;
  isSet(): boolean;
}

export function createTimer(): Timer {
  let id: ReturnType<typeof setTimeout> | undefined;
  const clear = (): void => {
    clearTimeout(id);
    id = undefined;
  };
  return {
    set(ms, action) {
      clear();
      id = setTimeout(
        () => {
          id = undefined;
          action();
        },
        Math.min(LIMIT, ms),
      );
    },
    clear,
    isSet: () => id !== undefined,
  };
}
