/** Why the hub refused a request: its error body. A browser does not show a page why an upgrade failed. */

/** Limit (ms) of the question why. */
const TIMEOUT = 10_000;

export interface Refusal {
  status: number;
  code: string;
  message: string;
  /** For how long (ms) the hub asks not to try again. */
  wait: number;
}

/** Reads an error response. A response that is not the hub's has the code "connect". */
export async function refusalOf(response: Response): Promise<Refusal> {
  const { status, statusText, headers } = response;
  const { code = "connect", message = `HTTP ${status} ${statusText}` } =
    (await response.json().catch(() => {}))?.error ?? {};
  return { status, code, message, wait: Number(headers.get("retry-after") ?? 0) * 1_000 };
}

/**
 * Asks the hub by a plain GET why it refused the upgrade at this address. Returns undefined if there is no answer, or
 * if the hub would accept the upgrade now.
 */
export async function whyRefused(url: URL, token: string | undefined): Promise<Refusal | undefined> {
  const ask = async (headers: HeadersInit): Promise<Response | undefined> =>
    fetch(url.href.replace(/^ws/, "http"), { headers, signal: AbortSignal.timeout(TIMEOUT) }).catch(() => undefined);
  // Without the token first: the browser sends no request with a token if the hub refuses the origin.
  let response = await ask({});
  if (response?.status === 401 && token) response = await ask({ authorization: `Bearer ${token}` });
  return response && !response.ok && response.status !== 426 ? refusalOf(response) : undefined;
}
