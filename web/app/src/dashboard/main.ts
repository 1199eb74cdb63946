// The dashboard: now, the history, and how the hub is. None of the three waits for another.

import { element } from "../dom";
import { askHealth, watchHealth } from "./health";
import { History } from "./history";
import { follow } from "./live";
import { Now } from "./now";

const now = new Now();
follow((activity) => {
  now.show(activity);
  if (!activity) void askHealth();
});
watchHealth();
new History();
// Only now, when everything has its place, so that nothing jumps.
element("main").hidden = false;
