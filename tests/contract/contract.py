"""Tests a real hub against its own OpenAPI and AsyncAPI documents.

It validates both documents with the schemas of their specifications. Then Schemathesis generates valid and invalid
requests from /openapi.json and checks each response: with the admin token, without a token, and with a visitor token on
a hub that requires tokens. The same SEED gives the same requests.

    contract.py PROGRAM [arguments of Schemathesis]
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
    """A hub process on a free port, with its own database."""

    def __init__(self, program: str, **settings: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        location = {"LISTEN": "127.0.0.1:0", "DATABASE_URL": f"sqlite://{self.folder.name}/hub.db"}
        quiet = {"RATE_LIMITS": "off", "RUST_LOG": "warn", "ADMIN_TOKEN": ADMIN}
        self.process = subprocess.Popen([program], env=location | quiet | settings, stdout=subprocess.PIPE, text=True)
        # The first line of its output ends with its address.
        self.url = self.process.stdout.readline().strip().rpartition(" ")[2].rstrip("/")

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        code = self.process.wait(timeout=20)
        self.folder.cleanup()
        if code != 0:
            sys.exit(f"the hub exited with {code}")


def validate(hub: Hub) -> None:
    """Validates both documents by their specifications."""
    def read(name: str) -> dict:
        with urllib.request.urlopen(f"{hub.url}/{name}") as response:
            return json.load(response)

    OpenAPIV31SpecValidator(read("openapi.json")).validate()
    schema = json.loads(ASYNCAPI.read_text())
    jsonschema_rs.validator_for(schema).validate(read("asyncapi.json"))
    print("openapi.json and asyncapi.json are valid", flush=True)


def run_schemathesis(hub: Hub, role: str, token: str | None, more: list[str]) -> bool:
    """Runs Schemathesis on all operations. Returns whether it found no failure."""
    print(f"\nAs {role}, with seed {SEED}:", flush=True)
    bearer = ["--header", f"Authorization: Bearer {token}"] if token else []
    schemathesis = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    run = ["run", f"{hub.url}/openapi.json", "--seed", SEED, *bearer, *more]
    return subprocess.run(schemathesis + run, cwd=hub.folder.name).returncode == 0


def main() -> None:
    program, *more = sys.argv[1:]
    with Hub(program) as hub:
        validate(hub)
        passed = [
            run_schemathesis(hub, "admin", ADMIN, more),
            run_schemathesis(hub, "client without a token", None, more),
        ]
    with Hub(program, TOKEN_SECRET=SECRET, DASHBOARD="admin", METRICS="admin") as hub:
        command = [program, "token", "--visitor", "ann"]
        made = subprocess.run(command, env={"TOKEN_SECRET": SECRET}, capture_output=True, text=True, check=True)
        passed.append(run_schemathesis(hub, "visitor with a token", made.stdout.strip(), more))
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
