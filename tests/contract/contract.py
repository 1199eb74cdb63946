"""Is the contract true? Asks a real hub whatever its own documents say that may be asked.

Both documents are validated by the schemas of their specifications; then Schemathesis makes requests from
/openapi.json, good and bad ones, and checks each answer: as the admin, as nobody, and where the hub asks for
tokens. The same seed makes the same requests: SEED=… for others.

    contract.py PROGRAM [what else to tell Schemathesis]
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import jsonschema_rs
from openapi_spec_validator import OpenAPIV31SpecValidator

HERE = Path(__file__).parent
ASYNCAPI = HERE.parent.parent / "web/node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"
ADMIN = "the-admins-token"
SECRET = "a secret of more than thirty-two bytes"
SEED = os.environ.get("SEED", "1")


class Hub:
    """A hub in a process of its own, on a free port, with a database of its own."""

    def __init__(self, program: str, **settings: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        here = {"LISTEN": "127.0.0.1:0", "DATABASE_URL": f"sqlite://{self.folder.name}/hub.db"}
        quiet = {"RATE_LIMITS": "off", "RUST_LOG": "warn", "ADMIN_TOKEN": ADMIN}
        self.process = subprocess.Popen([program], env=here | quiet | settings, stdout=subprocess.PIPE, text=True)
        # Its first line tells its address.
        self.url = self.process.stdout.readline().strip().rpartition(" ")[2].rstrip("/")

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        code = self.process.wait(timeout=20)
        self.folder.cleanup()
        if code != 0:
            sys.exit(f"the hub ended with {code}")


def validate(hub: Hub) -> None:
    """Checks that both documents are what they say they are."""
    def read(name: str) -> dict:
        with urllib.request.urlopen(f"{hub.url}/{name}") as answer:
            return json.load(answer)

    OpenAPIV31SpecValidator(read("openapi.json")).validate()
    schema = json.loads(ASYNCAPI.read_text())
    jsonschema_rs.validator_for(schema).validate(read("asyncapi.json"))
    print("openapi.json and asyncapi.json are valid", flush=True)


def ask(hub: Hub, who: str, token: str | None, more: list[str]) -> bool:
    """Has Schemathesis ask everything, and tells whether it found nothing."""
    print(f"\nAs {who}, with the seed {SEED}:", flush=True)
    bearer = ["--header", f"Authorization: Bearer {token}"] if token else []
    schemathesis = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    run = ["run", f"{hub.url}/openapi.json", "--seed", SEED, *bearer, *more]
    return subprocess.run(schemathesis + run, cwd=hub.folder.name).returncode == 0


def main() -> None:
    program, *more = sys.argv[1:]
    with Hub(program) as hub:
        validate(hub)
        good = [ask(hub, "the admin", ADMIN, more), ask(hub, "nobody", None, more)]
    with Hub(program, TOKEN_SECRET=SECRET, DASHBOARD="admin", METRICS="admin") as hub:
        command = [program, "token", "--visitor", "ann"]
        made = subprocess.run(command, env={"TOKEN_SECRET": SECRET}, capture_output=True, text=True, check=True)
        good.append(ask(hub, "a visitor with a token", made.stdout.strip(), more))
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
