// Web storage without exceptions. If the browser forbids it, nothing is stored.

type Area = "localStorage" | "sessionStorage";

export function load(area: Area, key: string): string | null {
  try {
    return window[area].getItem(key);
  } catch {
    return null;
  }
}

/** Stores a value; null removes it. */
export function save(area: Area, key: string, value: string | null): void {
  try {
    if (value === null) window[area].removeItem(key);
    else window[area].setItem(key, value);
  } catch {
    // Not stored.
  }
}
