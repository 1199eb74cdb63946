// The admin token, which a tab keeps where the dashboard is the admin's, and how a request brings it.

import { keep, kept } from "./kept";

const NAME = "breathing-room:admin-token";

/** For browsers that keep nothing: for as long as the page is there. */
let given: string | null = null;

export function adminToken(): string | null {
  return given ?? kept("sessionStorage", NAME);
}

/** Keeps the token, or forgets it. */
export function keepAdminToken(token: string | null): void {
  given = token;
  keep("sessionStorage", NAME, token);
}

/** The headers of a request. */
export function authorization(token = adminToken()): Record<string, string> {
  return token === null ? {} : { authorization: `Bearer ${token}` };
}

/** The subprotocols of a socket, which has no headers. */
export function protocols(token = adminToken()): string[] {
  const spoken = "breathing-room.v1";
  return token === null ? [spoken] : [spoken, `bearer.${encoded(token)}`];
}

/** A subprotocol has letters, digits and a few signs; the hub knows its token in this form too. */
function encoded(token: string): string {
  const percent = (sign: string): string => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(token).replace(/[!'()*]/g, percent);
}
