/** Random ids. By `getRandomValues`, because `randomUUID` is missing on pages without https. */

/** So many random bytes as hexadecimal digits. */
export function randomHex(bytes: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

/** A UUID of version 7 (RFC 9562): sorts by the time at which it was made. */
export function uuid(now = Date.now()): string {
  const time = now.toString(16).padStart(12, "0");
  // The digit 8 is the variant; with the version's 7 it leaves 72 of these bits.
  const random = randomHex(9);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-8${random.slice(3, 6)}-${random.slice(6)}`;
}
