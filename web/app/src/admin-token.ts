// The admin token: stored for the tab, and sent with requests if the hub has DASHBOARD=admin.

import { load, save } from "./storage";

const KEY = "breathing-room:admin-token";

/** The token in memory, for browsers without storage. */
let current: string | null = null;

export function adminToken(): string | null {
  return current ?? load("sessionStorage", KEY);
}

/** Stores the token; null removes it. */
export function saveAdminToken(token: string | null): void {
  current = token;
  save("sessionStorage", KEY, token);
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
