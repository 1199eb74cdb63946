/** Why the hub refused a request: its error body. A browser does not show a page why an upgrade failed. */

import type { RoomError } from "./api.js";

export interface Refusal {
  error: RoomError;
  /** When to try again, in ms; Infinity if the hub itself refuses this token or page, 0 if it does not say. */
  wait: number;
}

/** Reads an error response. A response that is not the hub's has the code "connect". */
export async function refusalOf(response: Response): Promise<Refusal> {
  const { status, headers } = response;
  const body = (await response.json().catch(() => {})) as { error?: RoomError } | undefined;
  const error = body?.error;
  return {
    error: { code: "connect", message: `HTTP ${status}`, ...error, status },
    // A refusal without the hub's code is another's, such as a captive portal's. Clients that were refused together do
    // not come back together.
    wait:
      error?.code && (status === 401 || status === 403)
        ? Infinity
        : Number(headers.get("retry-after")) * 1_000 * (1 + Math.random()),
  };
}

/** The status of a plain GET whose upgrade the hub would accept. */
const ACCEPTED = 426;

/**
 * Asks the hub by a plain GET why it refused the upgrade at this address. Returns undefined if there is no answer, or
 * if the hub would accept the upgrade now.
 */
export async function whyRefused(
  url: string,
  visitor: string,
  token: string | undefined,
): Promise<Refusal | undefined> {
  const ask = (headers = {}): Promise<Response | void> => fetch(url, { headers }).catch(() => {});
  // Without headers first: the browser sends no request with such headers if the hub refuses the origin.
  let response = await ask();
  if (response && (response.status === ACCEPTED || (token && response.status === 401))) {
    response = await ask({ visitor, ...bearer(token) });
  }
  if (response && !response.ok && response.status !== ACCEPTED) return refusalOf(response);
}

/** Returns the headers of a request with this token. */
export const bearer = (token: string | undefined): Record<string, string> =>
  token ? { authorization: `Bearer ${token}` } : {};
