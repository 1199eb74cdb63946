// Follows README.md word by word: runs its commands in a clone of the last commit, and opens its snippets in Chromium.
//
// `make test-readme` runs it. COLD=1 starts with an empty clone and without downloaded crates and packages, as on a new
// machine, and so measures the first `make run`. It needs the port 8080, git, openssl and sqlite3.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const HUB = "http://127.0.0.1:8080";
const root = resolve(import.meta.dirname, "../..");
const folder = join(root, "target/readme");
const clone = join(folder, "clone");
const isCold = process.env.COLD === "1";

const env = { ...process.env };
if (isCold) {
  rmSync(folder, { recursive: true, force: true });
  Object.assign(env, { CARGO_HOME: join(folder, "cargo"), npm_config_cache: join(folder, "npm") });
}
mkdirSync(folder, { recursive: true });

/** Commands that are not run, and why. Every other command of the README must be in a step. */
const SKIPPED = [
  [/^make test$/, "runs by itself"],
  [/^fly /, "needs an account at Fly"],
];

const steps = [];

/** Runs a script of bash in the clone. The last line of its output is returned. */
async function bash(script, { quiet = true } = {}) {
  const child = spawn("bash", ["-euo", "pipefail", "-c", script], {
    cwd: clone, env, stdio: ["ignore", "pipe", quiet ? "pipe" : "inherit"],
  });
  let output = "";
  let errors = "";
  child.stdout.on("data", (data) => (output += data));
  child.stderr?.on("data", (data) => (errors += data));
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`exit code ${code} of:\n${script}\n${output}${errors}`);
  return output.trim().split("\n").at(-1);
}

/** Starts a command of the README that runs until it is stopped, and waits for the address that the hub prints. */
async function start(script) {
  const begun = performance.now();
  const child = spawn("bash", ["-euo", "pipefail", "-c", script], {
    cwd: clone, env, detached: true, stdio: ["ignore", "pipe", "inherit"],
  });
  let output = "";
  const opened = new Promise((done, failed) => {
    child.stdout.on("data", (data) => {
      output += data;
      if (output.includes(`breathing-room is open at ${HUB}/`)) done();
    });
    child.on("close", (code) => failed(new Error(`exit code ${code} before the hub was open:\n${script}\n${output}`)));
  });
  await opened;
  const seconds = Math.round((performance.now() - begun) / 1_000);
  const stop = async () => {
    child.removeAllListeners("close");
    process.kill(-child.pid, "SIGTERM");
    if (child.exitCode === null && child.signalCode === null) await once(child, "close");
    await until(async () => !(await answers()), "the hub has stopped");
  };
  return { seconds, stop, output: () => output };
}

const answers = async () => fetch(`${HUB}/health`).then(() => true, () => false);

async function until(condition, what, timeout = 60_000) {
  for (const end = Date.now() + timeout; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

function check(condition, what) {
  if (!condition) throw new Error(what);
}

/** The fenced blocks of the README, with their languages. */
function blocks() {
  const text = readFileSync(join(clone, "README.md"), "utf8");
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, code]) => ({ language, code }));
}

/** Takes the one block of this language that contains `words`. */
function take(language, words) {
  const found = all.filter((block) => block.language === language && block.code.includes(words));
  check(found.length === 1, `${found.length} blocks of ${language} with ${words}`);
  found[0].used = true;
  return found[0].code;
}

function step(name, run) {
  steps.push([name, run]);
}

/** Opens a page of another site than the hub, and returns what it logs. */
async function openElsewhere(html, visit) {
  const { chromium } = createRequire(join(clone, "web/package.json"))("playwright-core");
  const site = createServer((_, response) => response.writeHead(200, { "content-type": "text/html" }).end(html));
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ userAgent: "Mozilla/5.0 Firefox/140.0" });
    const logged = [];
    page.on("console", (message) => logged.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => logged.push(`error: ${error.message}`));
    await page.goto(`http://127.0.0.1:${site.address().port}/`);
    await visit(page, logged);
    const errors = logged.filter((line) => line.startsWith("error") && !line.includes("favicon"));
    check(errors.length === 0, errors.join("\n"));
  } finally {
    await browser.close();
    site.close();
  }
}

const atHub = (code) => code.replaceAll("https://hub.example.org", HUB).replaceAll("wss://hub.example.org", HUB.replace("http", "ws"));

/** The status of a request for a socket, without opening one. 426 means that an upgrade would be accepted. */
async function socketStatus(headers) {
  return (await fetch(`${HUB}/rooms/lobby/socket?visitor=ann`, { headers })).status;
}

let hub;

step("make run opens the hub, its pages and its rooms", async () => {
  check(!(await answers()), `something else answers at ${HUB}`);
  hub = await start(take("sh", "make run     #"));
  console.log(`   make run took ${hub.seconds} s${isCold ? ", with nothing built or downloaded" : ""}`);
  for (const path of ["/", "/room/lobby"]) {
    const response = await fetch(HUB + path, { headers: { accept: "text/html" } });
    check(response.ok && (await response.text()).includes("<!doctype html>"), path);
  }
});

step("the crowd joins, and the hub's counts are right", async () => {
  await bash(take("sh", "--example crowd"));
});

step("the two lines show the number of people on another site", async () => {
  const html = `<!doctype html><html lang="en"><title>A site</title><p>${atHub(take("html", "data-room"))}</p>`;
  await openElsewhere(html, async (page) => {
    await page.waitForFunction(() => /\d/.test(document.body.innerText));
    console.log(`   the page says: ${(await page.innerText("body")).trim()}`);
  });
});

step("the module shows presence and records events", async () => {
  const module = atHub(take("js", "joinRoom }"));
  const html = `<!doctype html><html lang="en"><title>A site</title><audio></audio>
    <script>const show = (present, moods) => console.log("shown", present, JSON.stringify(moods));</script>
    <script type="module">${module}</script>`;
  await openElsewhere(html, async (_, logged) => {
    await until(() => logged.some((line) => /shown [1-9]\d* .*calm/.test(line)), `a presence with a mood: ${logged}`);
  });
});

step("a WebSocket without the library gets its welcome", async () => {
  const code = atHub(take("js", "new WebSocket"));
  await openElsewhere(`<!doctype html><html lang="en"><title>A site</title><script>${code}</script>`, async (_, logged) => {
    await until(() => logged.some((line) => line.includes('"type":"welcome"')), "a welcome");
  });
});

step("npm pack makes a package of the client", async () => {
  check(readFileSync(join(clone, "README.md"), "utf8").includes("`cd web && npm pack --workspace client`"), "npm pack");
  const file = await bash("cd web && npm pack --workspace client");
  check(existsSync(join(clone, "web", file)), file);
});

step("sqlite3 reads the history", async () => {
  const query = take("sh", "sqlite3 data/");
  await until(async () => /\|\d+/.test(await bash(query)), "page views are in the database", 90_000);
});

step("export, import, check and backup beside the running hub", async () => {
  await bash(`${take("sh", "breathing-room export")}\ntest -s history.jsonl -a -s backup.db; rm history.jsonl`);
  await hub.stop();
});

step("restore replaces the database of the stopped hub, and join fetches the one of a running hub", async () => {
  const text = readFileSync(join(clone, "README.md"), "utf8");
  check(["`restore backup.db`", "`breathing-room join URL`"].every((words) => text.includes(words)), "restore and join");
  const program = "target/debug/breathing-room";
  await bash(`${program} restore backup.db; rm backup.db`);
  const token = "ADMIN_TOKEN=the-token-of-this-test";
  hub = await start(`${token} make run`);
  await bash(`export ${token} DATABASE_URL=sqlite://joined/hub.db
    ${program} join ${HUB}; ${program} check --with ${HUB}; rm -r joined`);
  await hub.stop();
});

step("ALLOWED_ORIGINS lets another site in", async () => {
  const setting = take("sh", "ALLOWED_ORIGINS=self,https://app.example.org").trim();
  check(readFileSync(join(clone, "README.md"), "utf8").includes(`\`${setting} make run\``), `${setting} make run`);
  hub = await start(`${setting} make run`);
  const status = async (origin) => socketStatus({ origin });
  check((await status("https://app.example.org")) === 426, "the named origin");
  check((await status("https://other.example.org")) === 403, "another origin");
  await hub.stop();
});

step("a hub with TOKEN_SECRET admits the visitor of a token only", async () => {
  hub = await start(`${take("sh", "TOKEN_SECRET=$(")}\nwait`);
  const token = hub.output().split("\n").find((line) => /^[\w-]+\.[\w-]+\.[\w-]+$/.test(line));
  check(token, `no token in ${hub.output()}`);
  check((await socketStatus({})) === 401, "no token");
  check((await socketStatus({ authorization: `Bearer ${token}` })) === 426, "a token");
  await hub.stop();
});

step("a hub without the feature cluster refuses NATS_URL with one line that names the feature", async () => {
  const settings = "NATS_URL=nats://127.0.0.1:4222 ADMIN_TOKEN=$(openssl rand -hex 16)";
  const hub = `output=$(env ${settings} target/debug/breathing-room 2>&1 >/dev/null) && code=0 || code=$?`;
  const refusal = await bash(`${hub}\necho "$code, $(wc -l <<< "$output") line: $output"`);
  check(/^1, 1 line: .*NATS_URL.*feature cluster/.test(refusal), refusal);
});

step("every other command is skipped for a reason", async () => {
  for (const { code } of all.filter((block) => block.language === "sh" && !block.used)) {
    const reason = SKIPPED.find(([pattern]) => code.split("\n").some((line) => pattern.test(line)))?.[1];
    check(reason, `no step runs:\n${code}`);
    console.log(`   skipped, ${reason}: ${code.split("\n")[0]}`);
  }
});

if (existsSync(clone)) {
  await bash("git fetch --quiet origin && git reset --quiet --hard FETCH_HEAD && rm -rf data joined backup.db");
} else {
  const cloned = spawn("git", ["clone", "--quiet", "--no-local", root, clone], { stdio: "inherit", cwd: tmpdir() });
  check((await once(cloned, "close"))[0] === 0, "git clone");
}
const all = blocks();
try {
  for (const [name, run] of steps) {
    console.log(`== ${name}`);
    await run();
  }
} catch (error) {
  console.error(`FAILED: ${error.message}`);
  process.exitCode = 1;
  if (await answers()) await hub?.stop();
}
