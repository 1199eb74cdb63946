// The address of the hub: the page's own origin, or on a static host the one that a <meta> or `?hub=` names.

/** The hub's origin. The <meta> wins, so that a link cannot send the readers of a configured page to another hub. */
export function hubOrigin(meta: string | undefined, search: string, own: string): string {
  const text = meta || new URLSearchParams(search).get("hub");
  if (!text) return own;
  const url = URL.parse(text);
  if (!url || !/^https?:$/.test(url.protocol)) throw new TypeError(`the hub's address must be an http(s) URL: ${text}`);
  return url.origin;
}

let known: string | undefined;

export function hub(): string {
  const meta = () => document.querySelector<HTMLMetaElement>('meta[name="breathing-room-hub"]')?.content;
  return (known ??= hubOrigin(meta(), location.search, location.origin));
}

/** Whether the page is on another origin than its hub. */
export function isElsewhere(): boolean {
  return hub() !== location.origin;
}
