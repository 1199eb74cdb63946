/** Event targets, as the handles are. */

/** Returns a new event target with these members, getters included. */
export function eventTarget<T extends object>(members: T): T & EventTarget {
  return Object.defineProperties(new EventTarget(), Object.getOwnPropertyDescriptors(members)) as T & EventTarget;
}

export function emit(target: EventTarget, type: string, detail?: object): void {
  target.dispatchEvent(new CustomEvent(type, { detail }));
}
