/** Random ids, from `getRandomValues`: `randomUUID` is missing on pages without https. */

/** Returns this many random bytes as hexadecimal digits. */
export function randomHex(bytes: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

/** Returns a UUID version 7 (RFC 9562), which sorts by creation time. */
export function uuid(now = Date.now()): string {
  const time = now.toString(16).padStart(12, "0");
  // 72 random bits: the digit 7 is the version, the digit 8 the variant.
  const random = randomHex(9);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-8${random.slice(3, 6)}-${random.slice(6)}`;
}
