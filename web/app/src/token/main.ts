// Asks for the admin token, and shows the dashboard in its own place when the hub takes it.

import { adminToken, authorization, keepAdminToken } from "../admin";
import { element, setText } from "../dom";

async function open(token: string): Promise<void> {
  let answer: Response;
  try {
    answer = await fetch("/", { headers: authorization(token) });
  } catch {
    // Also a token that no header can hold.
    return refuse("The hub does not answer, or this is no token.");
  }
  if (answer.status === 401) {
    keepAdminToken(null);
    return refuse("This is not the hub's admin token.");
  }
  if (!answer.ok) return refuse(`The hub answered with ${answer.status}.`);
  keepAdminToken(token);
  const page = await answer.text();
  document.open();
  document.write(page);
  document.close();
}

function refuse(why: string): void {
  setText(element("problem"), why);
  element<HTMLInputElement>("token").select();
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  setText(element("problem"), "");
  void open(element<HTMLInputElement>("token").value.trim());
});

const before = adminToken();
if (before !== null) void open(before);
