/** Texts within the protocol's limits. Pure. */

/** Limits in bytes of UTF-8, by field; of all other texts DEFAULT. */
const LIMITS: Record<string, number> = { path: 512, content: 512 };
const DEFAULT = 1_024;

/** The longest `props`, in bytes of JSON. */
export const MAX_PROPS = 1_024;

/** Maximum size of an event. The hub's limit is 4,096 bytes per message; the rest is for the `ref`. */
const MAX_EVENT = 4_070;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

export const byteLength = (text: string): number => encoder.encode(text).length;

/** Cuts a text at a character boundary. Removes what the hub rejects: U+0000 and halves of surrogate pairs. */
export function cut(text: string, bytes: number): string {
  const buffer = new Uint8Array(bytes);
  const { written } = encoder.encodeInto(text.replaceAll("\0", ""), buffer);
  return decoder.decode(buffer.subarray(0, written));
}

/** Returns the JSON of an event with texts that are as long as the protocol allows. */
export function toJson(event: object): string {
  // A text with many characters that JSON escapes is cut again.
  for (let most = DEFAULT; ; most /= 2) {
    const json = JSON.stringify(event, (key, value) =>
      typeof value === "string" ? cut(value, Math.min(most, LIMITS[key] ?? DEFAULT)) : value,
    );
    if (byteLength(json) <= MAX_EVENT || most < 64) return json;
  }
}
