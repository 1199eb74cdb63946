/** How the visitor came to this document: the referrer and the `utm_…` parameters of its first page view. */

import type { Props } from "./api.js";

/** Whether the first page view of this document is recorded. */
let isRecorded = false;

/** Completes the options of a page view. Later page views of a document come from the document itself. */
export function landing(referrer: string | undefined, props: Props | undefined) {
  if (!isRecorded) {
    isRecorded = true;
    referrer ??= document.referrer;
    for (const [name, value] of new URLSearchParams(location.search)) {
      if (name.startsWith("utm_")) props = { [name]: value, ...props };
    }
  }
  // Another page of the same site is no referrer.
  return { referrer: referrer && !`${referrer}/`.startsWith(`${location.origin}/`) ? referrer : undefined, props };
}
