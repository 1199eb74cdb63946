/** The handle of a sit: counts down to its end by the hub's clock. Knows no socket. */

import type { Sit, SitEnd } from "./api.js";
import { emit, eventTarget } from "./events.js";
import { createTimer } from "./timer.js";

export interface SitHandle extends Sit {
  until: number;
  /** Follows the hub's time of its end. */
  move(until: number): void;
  finish(reason: SitEnd): void;
}

/** Calls `onEnd` before the event `end`. */
export function createSit(until: number, now: () => number, onEnd: (sit: SitHandle, reason: SitEnd) => void): SitHandle {
  const timer = createTimer();
  let isOver = false;

  const sit = eventTarget({
    until,
    get remaining() {
      return isOver ? 0 : Math.max(0, sit.until - now());
    },
    end: () => sit.finish("ended"),
    move(until: number) {
      if (until === sit.until) return;
      sit.until = until;
      check();
      emit(sit, "change");
    },
    finish(reason: SitEnd) {
      if (isOver) return;
      isOver = true;
      timer.clear();
      onEnd(sit, reason);
      emit(sit, "end", { reason });
    },
  }) as SitHandle;

  function check(): void {
    timer.set(sit.remaining, () => (sit.remaining ? check() : sit.finish("completed")));
  }

  check();
  return sit;
}
