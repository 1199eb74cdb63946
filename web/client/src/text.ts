/** Texts within the protocol's limits. Pure. */

/** The longest text, and the longest `props` as JSON, in bytes of UTF-8. */
export const MAX_TEXT = 1_024;

/** The longest `path` or `content`. */
const MAX_NAME = 512;

/** Maximum size of an event. The hub's limit is 4,096 bytes per message; the rest is for the `ref`. */
const MAX_EVENT = 4_070;

const encoder = new TextEncoder();

export const byteLength = (text: string): number => encoder.encode(text).length;

/** Cuts a text at a character boundary. Removes what the hub rejects: U+0000 and halves of surrogate pairs. */
export function cut(text: string, bytes: number): string {
  const valid = text.replace(/[\0\ud800-\udfff]/gu, "");
  return valid.slice(0, encoder.encodeInto(valid, new Uint8Array(bytes)).read);
}

/** Returns the JSON of an event, with texts that are as long as the protocol allows. */
export function toJson(event: object): string {
  // Texts with many characters that JSON escapes are cut again.
  for (let most = MAX_TEXT; ; most /= 2) {
    const json = JSON.stringify(event, (key, value) =>
      typeof value === "string" ? cut(value, /^(path|content)$/.test(key) ? Math.min(most, MAX_NAME) : most) : value,
    );
    if (byteLength(json) <= MAX_EVENT) return json;
  }
}
