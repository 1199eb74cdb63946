// Visitors' tokens, as a site's server signs them.

import { createHmac } from "node:crypto";

/** The hub's `TOKEN_SECRET`. */
export const SECRET = "a-secret-of-at-least-thirty-two-bytes";

/**
 * Returns a token of this visitor that ends `seconds` from now, and was signed `age` seconds ago. The hub accepts it for
 * 30 s longer.
 */
export function tokenFor(visitor: string, seconds: number, age = 0): string {
  const encode = (part: object): string => Buffer.from(JSON.stringify(part)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = { sub: visitor, iat: now - age, exp: now + seconds };
  const text = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${text}.${createHmac("sha256", SECRET).update(text).digest("base64url")}`;
}
