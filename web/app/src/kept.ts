// What a page keeps for the next time. Where the browser keeps nothing, nothing is kept.

type Place = "localStorage" | "sessionStorage";

export function kept(place: Place, name: string): string | null {
  try {
    return window[place].getItem(name);
  } catch {
    return null;
  }
}

/** Keeps a value, or forgets it where there is none. */
export function keep(place: Place, name: string, value: string | null): void {
  try {
    if (value === null) window[place].removeItem(name);
    else window[place].setItem(name, value);
  } catch {
    // Then not.
  }
}
