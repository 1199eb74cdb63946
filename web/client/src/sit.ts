/** The handle of a sit: counts down to its end by the hub's clock. Knows no socket. */

import type { Sit, SitEnd } from "./api.js";
import { emit, eventTarget } from "./events.js";
import { createTimer } from "./timer.js";

export interface SitHandle extends Sit {
  until: number;
  confirmed: boolean;
  /** Follows the hub, which knows the sit. */
  confirm(until: number): void;
  finish(reason: SitEnd): void;
}

/** Calls `onEnd` before the event `end`; `isOwn`: by `end()`, so that the hub does not know yet. */
export function createSit(
  until: number,
  confirmed: boolean,
  now: () => number,
  onEnd: (sit: SitHandle, isOwn: boolean) => void,
): SitHandle {
  const timer = createTimer();
  let isOver = false;

  const sit = eventTarget({
    until,
    confirmed,
    get remaining() {
      return isOver ? 0 : Math.max(0, sit.until - now());
    },
    end: () => finish("ended", true),
    confirm(until: number) {
      if (sit.confirmed && until === sit.until) return;
      sit.confirmed = true;
      sit.until = until;
      check();
      emit(sit, "change");
    },
    finish,
  }) as SitHandle;

  function finish(reason: SitEnd, isOwn = false): void {
    if (isOver) return;
    isOver = true;
    timer.clear();
    onEnd(sit, isOwn);
    emit(sit, "end", { reason });
  }

  function check(): void {
    timer.set(sit.remaining, () => (sit.remaining ? check() : finish("completed")));
  }

  check();
  return sit;
}
