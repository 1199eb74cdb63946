// The dashboard: current activity, history and hub health. The three load independently.

import { element } from "../dom";
import { pollHealth, refreshHealth } from "./health";
import { History } from "./history";
import { subscribeActivity } from "./live";
import { Now } from "./now";

const now = new Now();
subscribeActivity((live) => {
  now.show(live);
  if (live.state === "lost") void refreshHealth();
});
pollHealth();
new History();
// Shown after everything is created, to avoid layout shifts.
element("main").hidden = false;
