"""The proxy under test: a certificate, rules, and two nodes of the binary in front of the origins.

One node for all clients, and one that only believes connections that begin with a PROXY header.
Everything is in a temporary folder and on ports of the loopback that were free a moment ago.
"""

import asyncio
import importlib.util
import json
import os
import pathlib
import queue
import signal
import socket
import subprocess
import threading
import time

import origins

#: The name that everybody asks for; in the certificate, and in no zone.
NAME = "clients.test"


class Setting:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, pathlib.Path(folder)
        self.processes = []
        self.certificate = self.folder / "certificate.pem"
        self.access_log = self.folder / "access.log"
        self.calls, self.closes = origins.Calls(), queue.Queue()
        self.http = None
        self.grpc_server = None

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.make_certificate()
        ports = self.start_origins()
        rules = self.folder / "rules.json"
        rules.write_text(json.dumps(self.rules(*ports)))
        self.port, self.tls_port, self.announced_port, *peers = free_ports(5)
        self.node("one", rules, peers[0], "--listen", f"127.0.0.1:{self.port}",
                  "--listen-tls", f"127.0.0.1:{self.tls_port}", "--certificate", self.certificate,
                  "--access-log", self.access_log)
        self.node("two", rules, peers[1], "--listen", f"127.0.0.1:{self.announced_port}",
                  "--proxy-protocol", "127.0.0.0/8", "--access-log", "off")
        for port in (self.port, self.tls_port, self.announced_port):
            wait_for(port)

    def node(self, name, rules, peer_port, *flags):
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("TRADEWIND_")}
        self.processes.append(subprocess.Popen(
            [self.binary, "node", "--id", name, "--rules", rules, "--data", self.folder / name,
             "--peer-listen", f"127.0.0.1:{peer_port}", "--allow-target", "127.0.0.0/8", *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=open(self.folder / f"{name}.log", "wb"), env=environment))

    def make_certificate(self):
        key, chain = self.folder / "key.pem", self.folder / "chain.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-keyout", key, "-out", chain,
             "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost,IP:127.0.0.1"],
            check=True, capture_output=True)
        self.certificate.write_bytes(chain.read_bytes() + key.read_bytes())
        self.chain = chain

    def start_origins(self):
        """The HTTP and WebSocket origins on a thread of their own, gRPC on its own ones."""
        loop, ready, ports = asyncio.new_event_loop(), threading.Event(), []

        async def serve():
            self.http = origins.HttpOrigin()
            ports.append(await self.http.start())
            if importlib.util.find_spec("websockets"):
                ports.append(await origins.start_websockets(self.closes))
            else:
                ports.append(free_ports(1)[0])
            ready.set()
            await asyncio.Event().wait()

        threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True).start()
        if not ready.wait(20):
            raise RuntimeError("the origins do not start")
        if importlib.util.find_spec("grpc"):
            self.grpc_server, port = origins.start_grpc(self.calls)
            ports.append(port)
        else:
            ports.append(free_ports(1)[0])
        return ports

    def rules(self, http, websockets, grpc):
        def rule(id, prefix, target, **more):
            match = {"any": [{"path": {"prefix": prefix}}]}
            return {"id": id, "data": {"match": match, "targets": [{"url": target}], **more}}

        nobody = free_ports(1)[0]
        return [
            rule("pages", "/http", f"http://127.0.0.1:{http}",
                 filters=[{"rewrite": {"prefix": "/"}}]),
            rule("sockets", "/socket", f"http://127.0.0.1:{websockets}"),
            rule("calls", "/clients.Calls", f"h2c://127.0.0.1:{grpc}"),
            rule("nobody", "/clients.Nobody", f"h2c://127.0.0.1:{nobody}"),
        ]

    def logged(self, path, count=1):
        """The lines of the access log for a path, once there are so many."""
        until = time.monotonic() + 15
        while True:
            text = self.access_log.read_text() if self.access_log.exists() else ""
            lines = [json.loads(line) for line in text.splitlines(keepends=True)
                     if line.endswith("\n")]
            lines = [line for line in lines if line["path"] == path]
            if len(lines) >= count or time.monotonic() > until:
                return lines
            time.sleep(0.05)

    def stop(self):
        if self.grpc_server:
            self.grpc_server.stop(None)
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=25)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ended_well(self):
        """Whether every node ended with 0 and said nothing of a panic."""
        said = [(self.folder / f"{name}.log").read_text() for name in ("one", "two")]
        panics = [line for text in said for line in text.splitlines() if "panic" in line]
        codes = [process.returncode for process in self.processes]
        if panics or any(codes):
            print("clients: the nodes ended with", codes, *panics, sep="\n  ")
        return not panics and not any(codes)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def wait_for(port):
    until = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
