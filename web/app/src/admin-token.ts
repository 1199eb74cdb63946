// The admin token: stored for the tab, and sent with requests if the hub has DASHBOARD=admin.

import { hub, isElsewhere } from "./hub";
import { load, save } from "./storage";

/** A token is for one hub: a static host may have the dashboards of several. */
const key = (): string => `breathing-room:admin-token${isElsewhere() ? `:${hub()}` : ""}`;

/** The token in memory, for browsers without storage. */
let current: string | null = null;

export function adminToken(): string | null {
  return current ?? load("sessionStorage", key());
}

/** Stores the token; null removes it. */
export function saveAdminToken(token: string | null): void {
  current = token;
  save("sessionStorage", key(), token);
}

/** Returns the headers of a request. */
export function authHeaders(token = adminToken()): Record<string, string> {
  return token === null ? {} : { authorization: `Bearer ${token}` };
}

/** Returns the subprotocols of a socket, because browsers cannot set its headers. */
export function subprotocols(token = adminToken()): string[] {
  const version = "breathing-room.v1";
  return token === null ? [version] : [version, `bearer.${encode(token)}`];
}

/** Percent-encodes all characters that a subprotocol must not contain. The hub decodes them. */
function encode(token: string): string {
  const percent = (char: string): string => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(token).replace(/[!'()*]/g, percent);
}
