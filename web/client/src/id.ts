/** Random ids, from `getRandomValues`: `randomUUID` is missing on pages without https. */

/** Returns 16 random bytes as hexadecimal digits. */
export function randomHex(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

/** Returns a UUID version 7 (RFC 9562), which sorts by creation time. */
export function uuid(now = Date.now()): string {
  // 48 bits of time, then random ones; the digit 7 is the version, the digit 8 the variant.
  const digits = now.toString(16).padStart(12, "0") + randomHex();
  return digits.replace(/(.{8})(.{4})(...)(...)(.{12}).*/, "$1-$2-7$3-8$4-$5");
}
