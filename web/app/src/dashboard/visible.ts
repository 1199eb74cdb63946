// Work that is done again and again, but only for eyes.

/** Does it now, then `every` so many ms after it was done; a hidden page waits until it is seen again. */
export function whileVisible(every: number, work: () => Promise<void>): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let running = false;

  async function run(): Promise<void> {
    clearTimeout(timer);
    if (running || document.hidden) return;
    running = true;
    try {
      await work();
    } finally {
      running = false;
      timer = setTimeout(run, every);
    }
  }

  document.addEventListener("visibilitychange", () => void run());
  void run();
}
