"""Fires alerts of deploy/prometheus/rules.yml by their faults: real hubs, and Prometheus with the rules.

Prometheus scrapes each second, and the rules wait for no `for`; thresholds and ranges are as they are. Three alerts are
not fired here: no fault from outside makes a hub panic, count wrongly, or answer without its periodic tasks. promtool
tests these with their series only.

Usage: alerts.py HUB PROMETHEUS NATS_SERVER
"""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADMIN = "a token of the deploy tests"
NOT_FIRED = {"BreathingRoomPanic", "BreathingRoomCountsDiffer", "BreathingRoomHangs"}
# An alert about the oldest pending event waits for two minutes.
TIMEOUT = 240


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until(condition, what: str):
    deadline = time.monotonic() + TIMEOUT
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in time: {what}")
        time.sleep(0.2)
    return result


class Hub:
    """A hub with a port that stays the same after a restart, so that it stays one target."""

    def __init__(self, program: str, folder: Path, **settings: str):
        folder.mkdir(exist_ok=True)
        self.program, self.port, self.folder = program, free_port(), folder
        self.database = folder / "hub.db"
        self.settings = {
            "LISTEN": f"127.0.0.1:{self.port}",
            "DATABASE_URL": f"sqlite://{self.database}",
            "ADMIN_TOKEN": ADMIN,
            "RATE_LIMITS": "off",
            "RUST_LOG": "off",
            **settings,
        }
        self.process = None

    @property
    def instance(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen([self.program, "serve"], env=self.settings, stdout=subprocess.PIPE, text=True)
        assert "http://" in self.process.stdout.readline()

    def stop(self, by: int = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(by)
            self.process.wait(30)
            self.process = None

    def run(self, *arguments: str) -> None:
        subprocess.run([self.program, *arguments], env=self.settings, check=True, capture_output=True)

    def post(self, path: str, body: object = None) -> int:
        headers = {"User-Agent": "alerts", "Content-Type": "application/json", "Authorization": f"Bearer {ADMIN}"}
        data = json.dumps(body).encode() if body is not None else b""
        request = urllib.request.Request(f"http://{self.instance}{path}", data, headers, method="POST")
        try:
            return urllib.request.urlopen(request, timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code

    def post_views(self, count: int = 100, path: str = "/page-view") -> int:
        views = [{"id": str(uuid.uuid4()), "room": "lobby", "visitor": "ann", "path": "/" + "x" * 300} for _ in range(count)]
        return self.post(path, views)

    def open_socket(self) -> socket.socket:
        stream = socket.create_connection(("127.0.0.1", self.port))
        stream.sendall(
            f"GET /rooms/lobby/socket HTTP/1.1\r\nHost: {self.instance}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert stream.recv(12) == b"HTTP/1.1 101"
        return stream


class Nats:
    """A NATS server."""

    def __init__(self, program: str):
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory()
        options = ["--addr=127.0.0.1", f"--port={self.port}", "--log=/dev/null", "--jetstream", f"--store_dir={self.folder.name}"]
        self.process = subprocess.Popen([program, *options])

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def forget_log(self) -> None:
        """Removes all messages of the hubs' log, as the server does when they are too old."""
        with socket.create_connection(("127.0.0.1", self.port)) as stream:
            stream.sendall(b'CONNECT {"verbose": false}\r\nPUB $JS.API.STREAM.PURGE.breathing-room-log 0\r\n\r\nPING\r\n')
            answers = b""
            while b"PONG" not in answers:
                answers += stream.recv(4096)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.folder.cleanup()


class OpenTransaction:
    """Another program that reads the database of a hub in one transaction, so that its log grows with each commit."""

    def __init__(self, hub: Hub):
        self.reader = sqlite3.connect(hub.database)
        self.reader.execute("BEGIN")
        self.reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        self.is_closed = threading.Event()
        self.posts = threading.Thread(target=self.post, args=(hub,))
        self.posts.start()

    def post(self, hub: Hub) -> None:
        while not self.is_closed.is_set():
            hub.post_views()

    def close(self) -> None:
        self.is_closed.set()
        self.posts.join()
        self.reader.close()


def rules() -> str:
    """The rules, without a wait before the alerts that are fired here."""
    head, *alerts = re.split(r"(?=- alert: )", (ROOT / "deploy/prometheus/rules.yml").read_text())
    for index, alert in enumerate(alerts):
        if not any(name in alert for name in NOT_FIRED):
            alerts[index] = re.sub(r"\bfor: \w+", "for: 0s", alert)
    return head + "".join(alerts)


class Prometheus:
    def __init__(self, program: str, folder: Path, hubs: list[Hub]):
        self.port = free_port()
        (folder / "rules.yml").write_text(rules())
        targets = json.dumps([hub.instance for hub in hubs])
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [rules.yml]\n"
            f"scrape_configs: [{{job_name: breathing-room, static_configs: [{{targets: {targets}}}]}}]\n"
        )
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", "--log.level=error"]
        self.process = subprocess.Popen([program, *options, f"--web.listen-address=127.0.0.1:{self.port}"])

    def firing(self) -> set[tuple[str, str]]:
        """Each firing alert with the instance it is about, which alerts about a whole job do not have."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/alerts", timeout=10) as answer:
                alerts = json.load(answer)["data"]["alerts"]
        except OSError:
            return set()
        return {(alert["labels"]["alertname"], alert["labels"].get("instance", "")) for alert in alerts if alert["state"] == "firing"}


def damage_a_page(database: Path) -> None:
    """Overwrites part of a page in the middle of the page views, of which no start of a hub reads all."""
    connection = sqlite3.connect(database)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name LIKE 'page_views_2%' AND type = 'table'").fetchone()
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    connection.close()
    with open(database, "r+b") as file:
        file.seek((root - 1) * size)
        page = file.read(size)
        # The root is an interior page: its cells begin with the number of a leaf.
        assert page[0] in (2, 5), page[0]
        cell = int.from_bytes(page[12:14], "big")
        leaf = int.from_bytes(page[cell:cell + 4], "big")
        file.seek((leaf - 1) * size)
        file.write(b"\xff" * 64)


def change_history(hub: Hub) -> None:
    """Changes what the records of a running hub add up to, as a file that lost one would have it."""
    connection = sqlite3.connect(hub.database, timeout=30)
    until(lambda: connection.execute("SELECT count(*) FROM months").fetchone()[0], "the event of another node")
    with connection:
        connection.execute("UPDATE months SET record_sum = zeroblob(16)")
    connection.close()


def prepare(program: str, folder: Path, nats: dict[str, Nats]) -> dict[str, Hub]:
    library = folder / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, ROOT / "tests/hub/support/faults.c", "-ldl"], check=True)

    def faulty(name: str, **settings: str) -> Hub:
        return Hub(program, folder / name, LD_PRELOAD=str(library), FAULTS=str(folder / name / "fault"), **settings)

    def node(name: str, server: Nats) -> Hub:
        return Hub(program, folder / name, NODE=name, NATS_URL=server.url)

    hubs = {
        "healthy": Hub(program, folder / "healthy"),
        "restarts": Hub(program, folder / "restarts"),
        "small": Hub(program, folder / "small", MAX_CONNECTIONS="10"),
        "broken": faulty("broken", FLUSH_INTERVAL="1s", QUEUE_BYTES="400000", PING_INTERVAL="1h"),
        "slow": faulty("slow", FLUSH_INTERVAL="1s"),
        "damaged": Hub(program, folder / "damaged"),
        "node": node("node", nats["stays"]),
        "peer": node("peer", nats["stays"]),
        "other": node("other", nats["stays"]),
        "late": node("late", nats["stays"]),
        "alone": node("alone", nats["stops"]),
        "read": Hub(program, folder / "read", FLUSH_INTERVAL="1s"),
        "unarchived": Hub(program, folder / "unarchived", ARCHIVE_DIR=str(folder / "no-folder"), RETENTION="1months"),
    }
    damaged = hubs["damaged"]
    damaged.start()
    for _ in range(10):
        assert damaged.post_views(path="/page-view?durable=true") == 200
    damaged.stop()
    damage_a_page(damaged.database)
    (folder / "no-folder").write_text("a file")
    old = {"type": "page-view", "id": str(uuid.uuid4()), "room": "lobby", "visitor": "ann", "path": "/", "at": 1_700_000_000_000}
    (folder / "old.jsonl").write_text(json.dumps(old) + "\n")
    hubs["unarchived"].run("import", str(folder / "old.jsonl"))
    return hubs


def cause(hubs: dict[str, Hub], nats: dict[str, Nats]) -> list[socket.socket | OpenTransaction]:
    """Causes all faults, and returns what must stay open."""
    (hubs["slow"].folder / "fault").write_text("slow")
    (hubs["broken"].folder / "fault").write_text("broken")
    # A visitor, without whom there would be no presence samples to lose.
    still_open = [OpenTransaction(hubs["read"]), hubs["broken"].open_socket()]
    assert hubs["slow"].post_views(1) == 202
    while hubs["broken"].post_views() != 503:
        pass
    still_open += [hubs["small"].open_socket() for _ in range(10)]
    hubs["unarchived"].post("/maintain")
    for _ in range(3):
        hubs["restarts"].stop()
        hubs["restarts"].start()
        time.sleep(2)  # a scrape sees each start
    for name in ["restarts", "peer"]:
        hubs[name].stop(signal.SIGKILL)
    nats["stops"].close()
    hubs["late"].stop()
    assert hubs["node"].post_views(path="/page-view?durable=true") == 200
    change_history(hubs["other"])
    nats["stays"].forget_log()
    hubs["late"].start()
    return still_open


def main() -> None:
    program, prometheus_program, nats_program = sys.argv[1:]
    alerts = set(re.findall(r"alert: (\w+)", rules()))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        nats = {name: Nats(nats_program) for name in ["stays", "stops"]}
        hubs, prometheus, still_open = prepare(program, folder, nats), None, []
        try:
            for hub in hubs.values():
                hub.start()
            prometheus = Prometheus(prometheus_program, folder, list(hubs.values()))
            about = lambda hub, *names: {(f"BreathingRoom{name}", hubs[hub].instance) for name in names}
            until(lambda: ("BreathingRoomDatabaseDamaged", hubs["damaged"].instance) in prometheus.firing(), "a first alert")
            time.sleep(3)
            quiet = about("damaged", "DatabaseDamaged")
            assert prometheus.firing() == quiet, f"without a fault: {prometheus.firing() - quiet}"
            still_open = cause(hubs, nats)
            expected = quiet | {("BreathingRoomSlowFlush", ""), ("BreathingRoomServerErrors", "")}
            expected |= about("restarts", "Restarts", "Down") | about("peer", "Down") | about("small", "SocketsNearLimit")
            expected |= about("unarchived", "MaintenanceFails") | about("read", "WalLarge")
            expected |= about("node", "PeerLost", "ReplicasDiffer") | about("other", "ReplicasDiffer") | about("alone", "Alone", "LogAway") | about("late", "LogGone")
            expected |= about("broken", "FlushFails", "QueueFills", "RejectsEvents", "EventsWait", "SamplesLost")
            seen: set[tuple[str, str]] = set()

            def fire() -> bool:
                # Events are rejected, and the disk is slow, for as long as the faults last.
                hubs["broken"].post_views()
                hubs["slow"].post_views(1)
                seen.update(prometheus.firing())
                return expected <= seen

            try:
                until(fire, "all alerts")
            except TimeoutError:
                sys.exit(f"these alerts did not fire: {sorted(expected - seen)}")
            healthy = {alert for alert, instance in seen if instance == hubs["healthy"].instance}
            assert not healthy, f"the healthy hub has alerts: {healthy}"
            fired = {alert for alert, _ in seen}
            assert alerts - fired == NOT_FIRED, f"neither fired nor named as not fired: {alerts - fired ^ NOT_FIRED}"
            print(f"Prometheus: {len(fired)} alerts fired by their faults, and none about a healthy hub")
        finally:
            for fault in still_open:
                fault.close()
            for hub in hubs.values():
                hub.stop(signal.SIGKILL)
            for server in nats.values():
                server.close()
            if prometheus:
                prometheus.process.terminate()
                prometheus.process.wait(30)


main()
