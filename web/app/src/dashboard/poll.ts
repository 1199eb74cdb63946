// Polling that stops while the page is hidden.

/** Runs `work` now, then `interval` ms after it finished. A hidden page waits until it is visible again. */
export function pollWhileVisible(interval: number, work: () => Promise<void>): void {
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
      timer = setTimeout(run, interval);
    }
  }

  document.addEventListener("visibilitychange", () => void run());
  void run();
}
