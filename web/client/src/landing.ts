/** How the visitor came to this document: the referrer and the `utm_…` parameters of its first page view. */

import type { Props } from "./api.js";
import { byteLength, MAX_PROPS } from "./text.js";

/** Rooms whose first page view of this document is recorded. */
const recorded = new Set<string>();

/** Completes the options of a page view. Later page views of a document come from the page itself. */
export function landing(room: string, referrer: string | undefined, props: Props | undefined) {
  if (!recorded.has(room)) {
    recorded.add(room);
    referrer ??= document.referrer;
    const utm = [...new URLSearchParams(location.search)].filter(([name]) => /^utm_\w+$/.test(name));
    const all = { ...Object.fromEntries(utm), ...props };
    if (utm.length && byteLength(JSON.stringify(all)) <= MAX_PROPS) props = all;
  }
  // Another page of the same site is no referrer.
  const isOwn = !referrer || `${referrer}/`.startsWith(`${location.origin}/`);
  return { referrer: isOwn ? undefined : referrer, props };
}
