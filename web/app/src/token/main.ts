// The token form: replaces itself with the dashboard when the hub accepts the admin token.

import { adminToken, authHeaders, saveAdminToken } from "../admin-token";
import { element, setText } from "../dom";
import { hub, isElsewhere } from "../hub";

async function open(token: string): Promise<void> {
  let response: Response;
  try {
    // Only pages of the hub itself may read the hub's own page.
    response = await fetch(hub() + (isElsewhere() ? "/live-activity" : "/"), { headers: authHeaders(token) });
  } catch {
    // The hub is unreachable, or the token has characters that a header must not contain.
    return showProblem("The hub does not respond, or this is not a token.");
  }
  if (response.status === 401) {
    saveAdminToken(null);
    return showProblem("This is not the hub's admin token.");
  }
  if (!response.ok) return showProblem(`The hub responded with ${response.status}.`);
  saveAdminToken(token);
  if (isElsewhere()) return location.assign(`./${location.search}`);
  const page = await response.text();
  document.open();
  document.write(page);
  document.close();
}

function showProblem(text: string): void {
  setText(element("problem"), text);
  element<HTMLInputElement>("token").select();
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  setText(element("problem"), "");
  void open(element<HTMLInputElement>("token").value.trim());
});

const stored = adminToken();
if (stored !== null) void open(stored);
