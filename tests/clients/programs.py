"""Claims about curl, h2load, nghttp and wrk: statuses, counts and bodies, in every protocol."""

import hashlib
import json
import re
import subprocess
import time

import origins
from claims import Skip, check, claim, equal, run
from setting import NAME


def command(setting, path, *flags, tls=False, port=None):
    port = port or (setting.tls_port if tls else setting.port)
    scheme = "https" if tls else "http"
    to = ["--connect-to", f"{NAME}:{port}:127.0.0.1:{port}", "--cacert", setting.chain]
    return ["curl", "--silent", "--show-error", "--max-time", "30", *to, *flags,
            f"{scheme}://{NAME}:{port}{path}"]


def curl(setting, path, *flags, tls=False, port=None, **how):
    return run(*command(setting, path, *flags, tls=tls, port=port), **how)


PROTOCOLS = [
    ("HTTP/1.1", "1.1", ["--http1.1"], False),
    ("HTTP/2 by prior knowledge", "2", ["--http2-prior-knowledge"], False),
    ("HTTP/1.1 over TLS", "1.1", ["--http1.1"], True),
    ("HTTP/2 over TLS", "2", ["--http2"], True),
]


def needs_http2(flags):
    if "--http1.1" not in flags and "HTTP2" not in run("curl", "--version"):
        raise Skip("this curl has no HTTP/2")


def curl_in(says, version, flags, tls):
    @claim("curl", f"bodies both ways in {says}", ["curl"])
    def bodies(setting):
        needs_http2(flags)
        for path, length in [("bytes", 1024), ("bytes", 3_000_000), ("chunked", 1_000_000)]:
            out = setting.folder / "out"
            said = curl(setting, f"/http/{path}/{length}", *flags, "--output", out,
                        "--write-out", "%{http_version} %{response_code}", tls=tls)
            equal(said, f"{version} 200", path)
            check(out.read_bytes() == origins.body(length), f"{path} {length}: another body")
        upload = setting.folder / "upload"
        upload.write_bytes(origins.body(2_000_000))
        digest = hashlib.sha256(upload.read_bytes()).hexdigest()
        for extra in ([], ["--header", "transfer-encoding: chunked"]):
            if extra and version == "2":
                continue
            said = json.loads(curl(setting, "/http/echo/a?b=c", *flags, *extra,
                                   "--data-binary", f"@{upload}", tls=tls))
            equal(said["sha256"], digest, "upload")
            equal((said["method"], said["target"]), ("POST", "/echo/a?b=c"), "request")
            port = setting.tls_port if tls else setting.port
            equal(said["headers"]["host"], [f"{NAME}:{port}"], "Host")
            equal(said["headers"]["x-forwarded-proto"], ["https" if tls else "http"], "scheme")

    @claim("curl", f"statuses, HEAD and a slow answer in {says}", ["curl"])
    def statuses(setting):
        needs_http2(flags)
        shown = ["--output", "/dev/null", "--write-out", "%{response_code}"]
        for status in (204, 304, 404, 500, 503):
            equal(curl(setting, f"/http/status/{status}", *flags, *shown, tls=tls), str(status))
        equal(curl(setting, "/no/rule", *flags, *shown, tls=tls), "404", "no rule")
        head = curl(setting, "/http/bytes/77", *flags, "--head", tls=tls).lower()
        check("content-length: 77\r\n" in head, head)
        # Each line says when it was sent: the first was here before the last was.
        slow = command(setting, "/http/slow/5", *flags, "--no-buffer", tls=tls)
        with subprocess.Popen(slow, stdout=subprocess.PIPE) as streaming:
            sent, here = zip(*[(float(line), time.time()) for line in streaming.stdout])
        equal((streaming.returncode, len(sent)), (0, 5), "pieces")
        check(here[0] < sent[-1], "the answer is held back until it is whole")


for protocol in PROTOCOLS:
    curl_in(*protocol)


@claim("curl", "a balancer's PROXY header is believed, and asked for", ["curl"])
def announced(setting):
    port = setting.announced_port
    if "--haproxy-protocol" not in run("curl", "--help", "all"):
        raise Skip("this curl has no --haproxy-protocol")
    said = json.loads(curl(setting, "/http/echo", "--haproxy-protocol", port=port))
    equal(said["headers"]["x-forwarded-for"], ["127.0.0.1"], "the client")
    if "--haproxy-clientip" in run("curl", "--help", "all"):
        said = json.loads(curl(setting, "/http/echo", "--haproxy-clientip", "203.0.113.7",
                               port=port))
        equal(said["headers"]["x-forwarded-for"], ["203.0.113.7"], "the client")
    # Without one the connection is closed: no answer, or a reset where bytes were left.
    for code in (52, 56):
        try:
            return curl(setting, "/http/echo", port=port, code=code)
        except AssertionError as error:
            failure = error
    raise failure


def h2load(setting, *flags, requests=2000):
    said = run("h2load", "-n", requests, *flags, timeout=120)
    line = re.search(r"requests: (.*)", said)
    equal(line and line[1], f"{requests} total, {requests} started, {requests} done, "
          f"{requests} succeeded, 0 failed, 0 errored, 0 timeout", said)
    check(f"status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx" in said, said)
    return said


def h2load_in(says, tls, protocol, *flags):
    @claim("h2load", f"every request is answered in {says}", ["h2load"])
    def load(setting):
        port = setting.tls_port if tls else setting.port
        scheme = "https" if tls else "http"
        to = f"--connect-to=127.0.0.1:{port}"
        url = f"{scheme}://{NAME}:{port}/http"
        said = h2load(setting, *flags, to, f"{url}/bytes/1000")
        check(f"Application protocol: {protocol}" in said, said)
        check("(2000000) data" in said, said)
        data = setting.folder / "data"
        data.write_bytes(origins.body(100_000))
        h2load(setting, *flags, to, "-d", data, f"{url}/echo", requests=200)


h2load_in("HTTP/2 over TLS", True, "h2", "-c", 10, "-m", 20)
h2load_in("HTTP/2 in clear text", False, "h2c", "-c", 10, "-m", 20)
h2load_in("HTTP/1.1 over TLS", True, "http/1.1", "-c", 20, "--h1")
h2load_in("HTTP/1.1 in clear text", False, "http/1.1", "-c", 20, "--h1")


@claim("nghttp", "many streams of one connection, each with its own answer", ["nghttp"])
def nghttp(setting):
    for scheme, port in [("https", setting.tls_port), ("http", setting.port)]:
        url = f"{scheme}://127.0.0.1:{port}/http"
        authority = f":authority: {NAME}:{port}"
        paths = ["bytes/1", "chunked/70000", "status/204", "status/404", "slow/2", "bytes/200000"]
        said = run("nghttp", "--null-out", "--stat", "--no-verify-peer", "-H", authority,
                   *[f"{url}/{path}" for path in paths])
        rows = re.findall(r"^ *\d+ .* (\d{3}) +(\S+) (/\S+)$", said, re.MULTILINE)
        found = {path.removeprefix("/http/"): status for status, _, path in rows}
        wanted = {path: "200" for path in paths} | {"status/204": "204", "status/404": "404"}
        equal(found, wanted, said)
        said = run("nghttp", "--no-verify-peer", "-H", authority, f"{url}/chunked/70000",
                   "--multiply", 1, "--window-bits=17")
        check(len(said) > 60_000, "the body is short")


@claim("wrk", "no answer is an error over a hundred connections", ["wrk"])
def wrk(setting):
    for scheme, port in [("http", setting.port), ("https", setting.tls_port)]:
        said = run("wrk", "-t2", "-c100", "-d2s", "--timeout", "10s", "-H", f"Host: {NAME}",
                   f"{scheme}://127.0.0.1:{port}/http/bytes/1000")
        done = re.search(r"(\d+) requests in", said)
        check(done and int(done[1]) > 100, said)
        check("Socket errors" not in said and "Non-2xx" not in said, said)
