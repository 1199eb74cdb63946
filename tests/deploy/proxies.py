"""Tries the proxies of docs/deploy.md with the files in deploy/: nginx and Caddy, each in front of a real hub.

Usage: proxies.py HUB NGINX CADDY
"""

import base64
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
# Few, so that the limit by address is reached soon.
SOCKETS = 3
TIMEOUT = 20

TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connect(port: int, source: str) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), TIMEOUT, (source, 0))
    return TLS.wrap_socket(plain, server_hostname="localhost")


class Client:
    """A WebSocket client. `status` is that of the answer to the upgrade."""

    def __init__(self, port: int, visitor: str, source: str = "127.0.0.1", headers: str = ""):
        self.stream = connect(port, source)
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(
            f"GET /rooms/lobby/socket?visitor={visitor} HTTP/1.1\r\nHost: localhost:{port}\r\n"
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{headers}"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: breathing-room.v1\r\n\r\n".encode()
        )
        self.reader = self.stream.makefile("rb")
        self.status = int(self.reader.readline().split()[1])
        while self.reader.readline() not in (b"\r\n", b""):
            pass

    def send(self, message: dict) -> None:
        payload, mask = json.dumps(message).encode(), os.urandom(4)
        assert len(payload) < 126
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.stream.sendall(bytes([0x81, 0x80 | len(payload)]) + mask + masked)

    def frame(self) -> tuple[int, bytes]:
        first, length = self.reader.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.reader.read(2))
        return first & 0x0F, self.reader.read(length)

    def until(self, expected) -> dict:
        """Reads messages until one is as expected."""
        while True:
            opcode, payload = self.frame()
            if opcode == 1 and expected(message := json.loads(payload)):
                return message

    def close_code(self) -> int:
        while True:
            opcode, payload = self.frame()
            if opcode == 8:
                return struct.unpack(">H", payload[:2])[0]

    def close(self) -> None:
        self.stream.shutdown(socket.SHUT_RDWR)


def start_hub(program: str, folder: Path, port: int) -> tuple[subprocess.Popen, str]:
    settings = {
        "LISTEN": "127.0.0.1:0",
        "DATABASE_URL": f"sqlite://{folder}/hub.db",
        "ADMIN_TOKEN": "a token of the deploy tests",
        "CLIENT_IP_HEADER": "X-Forwarded-For",
        "PUBLIC_URL": f"https://localhost:{port}",
        "ADDRESS_SOCKETS": str(SOCKETS),
        "LEAVE_GRACE": "0s",
    }
    hub = subprocess.Popen([program, "serve"], env=settings, stdout=subprocess.PIPE, text=True)
    line = hub.stdout.readline()
    return hub, line.split("http://")[1].strip().strip("/")


def wait_for(port: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return connect(port, "127.0.0.1").close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Nginx:
    name = "nginx"

    def __init__(self, program: str, folder: Path, port: int, hub: str):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
             "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True, capture_output=True,
        )
        site = (DEPLOY / "nginx.conf").read_text()
        site = site.replace("listen [::]:443", f"# [::]:{port}").replace("listen 443", f"listen 127.0.0.1:{port}")
        site = site.replace("hub.example.org;", "localhost;").replace("127.0.0.1:8080", hub)
        site = site.replace("/etc/letsencrypt/live/hub.example.org/fullchain.pem", f"{folder}/cert.pem")
        site = site.replace("/etc/letsencrypt/live/hub.example.org/privkey.pem", f"{folder}/key.pem")
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/nginx.pid; error_log stderr warn; events {{}}\n"
            f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
            f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{site}\n}}\n"
        )
        self.command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        subprocess.run([*self.command, "-t"], check=True, capture_output=True)
        self.process = subprocess.Popen(self.command)

    def reload(self) -> None:
        subprocess.run([*self.command, "-s", "reload"], check=True)


class Caddy:
    name = "Caddy"

    def __init__(self, program: str, folder: Path, port: int, hub: str):
        site = (DEPLOY / "Caddyfile").read_text()
        site = site.replace("hub.example.org {", f"https://localhost:{port} {{\n\ttls internal\n\tbind 127.0.0.1", 1)
        self.admin = f"127.0.0.1:{free_port()}"
        options = f"{{\n\tadmin {self.admin}\n\tauto_https disable_redirects\n\tskip_install_trust\n}}\n"
        self.config = folder / "Caddyfile"
        self.config.write_text(options + site.replace("127.0.0.1:8080", hub))
        environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        self.program, self.environment = program, environment
        arguments = ["--config", str(self.config), "--adapter", "caddyfile"]
        subprocess.run([program, "validate", *arguments], check=True, capture_output=True, env=environment)
        with open(folder / "caddy.log", "w") as log:
            self.process = subprocess.Popen([program, "run", *arguments], env=environment, stderr=log)

    def reload(self) -> None:
        # Caddy ignores a configuration that is the same.
        arguments = ["--config", str(self.config), "--adapter", "caddyfile", "--address", self.admin, "--force"]
        subprocess.run([self.program, "reload", *arguments], check=True, capture_output=True, env=self.environment)


def check(proxy, hub: subprocess.Popen, port: int) -> None:
    url = f"https://localhost:{port}"
    curl = ["curl", "--silent", "--insecure", "--resolve", f"localhost:{port}:127.0.0.1", "--output", "/dev/null"]
    page = subprocess.run([*curl, "--http2", "--write-out", "%{http_version} %{http_code}", url], capture_output=True)
    assert page.stdout == b"2 200", f"HTTP/2 in front: {page.stdout}"
    post = [*curl, "--write-out", "%{http_code}", "--data", "x" * 70_000, f"{url}/page-view"]
    status = subprocess.run(post, capture_output=True).stdout
    assert status == b"413", f"a body over the limit: {status}"

    ann = Client(port, "ann")
    assert ann.status == 101
    assert ann.until(lambda message: message["type"] == "welcome")["present"] == 1
    ben = Client(port, "ben")
    ann.until(lambda message: message.get("present") == 2)

    # The limit is by the address of the client, which cannot choose it.
    cat = Client(port, "cat")
    spoofed = Client(port, "dan", headers="X-Forwarded-For: 192.0.2.1\r\n")
    assert (cat.status, spoofed.status) == (101, 429), (cat.status, spoofed.status)
    elsewhere = Client(port, "dan", source="127.0.0.2")
    assert elsewhere.status == 101, elsewhere.status
    ann.until(lambda message: message.get("present") == 4)

    proxy.reload()
    wait_for(port)
    ben.send({"type": "mood", "mood": "calm"})
    ann.until(lambda message: message.get("moods", {}).get("calm") == 1)
    elsewhere.close()
    ann.until(lambda message: message.get("present") == 3)

    hub.terminate()
    codes = {client.close_code() for client in (ann, ben, cat)}
    assert codes == {1012}, codes
    assert hub.wait(TIMEOUT) == 0


def main() -> None:
    program, nginx, caddy = sys.argv[1:]
    for kind, path in ((Nginx, nginx), (Caddy, caddy)):
        with tempfile.TemporaryDirectory() as folder:
            folder, port = Path(folder), free_port()
            hub, address = start_hub(program, folder, port)
            proxy = None
            try:
                proxy = kind(path, folder, port, address)
                wait_for(port)
                check(proxy, hub, port)
            finally:
                for process in filter(None, [proxy and proxy.process, hub]):
                    process.terminate()
                    process.wait(TIMEOUT)
        print(f"{kind.name}: pages over HTTP/2, sockets, limits by address, a reload and a stop of the hub are right")


main()
