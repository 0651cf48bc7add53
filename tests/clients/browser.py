"""Claims about a browser: one page of headless Chromium over TLS and HTTP/2.

The page does the work and shows the outcome in its DOM; an image that the origin holds back until
the page has reported keeps the browser waiting for it.
"""

import html
import json
import re
import shutil
import tempfile

from claims import Skip, check, claim, equal, run
from setting import NAME

NAMES = ("chromium", "chromium-browser", "google-chrome")


def open_page(setting):
    program = next((name for name in NAMES if shutil.which(name)), None)
    if program is None:
        raise Skip("chromium is not installed")
    with tempfile.TemporaryDirectory() as profile:
        said = run(
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--no-proxy-server", f"--user-data-dir={profile}",
            "--ignore-certificate-errors", f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
            "--dump-dom", f"https://{NAME}:{setting.tls_port}/http/page", timeout=90)
    shown = re.search(r'<pre id="out">(.*?)</pre>', said, re.DOTALL)
    check(shown and shown[1].startswith("{"), "the page is not done:", said[-3000:])
    return json.loads(html.unescape(shown[1]))


@claim("chromium", "a page streams, uploads, takes events and a socket over HTTP/2")
def page(setting):
    found = open_page(setting)
    equal(found["stream"], {"pieces": True, "apart": True}, "a stream by fetch")
    equal(found["upload"], {"same": True, "proto": "https"}, "an upload")
    equal(found["events"], [f"tick {at}" for at in range(5)], "an event source")
    equal(found["socket"], {
        "seen": ["hello", "70000 bytes"], "code": 4002, "reason": "as you wish",
        "wasClean": True, "protocol": "chat.v2",
    }, "a WebSocket")
    equal(found["parallel"], True, "sixty requests at once")
    equal(found["protocols"], ["h2"], "protocols")
    equal(found, setting.http.reports, "what was reported")
    lines = setting.logged("/socket/browser")
    equal(len(lines), 1, "lines in the access log")
    check(lines[0]["protocol"].startswith("HTTP/2"), "RFC 8441, a socket over a stream:", lines)
    equal(lines[0]["status"], 200, "the answer to CONNECT")
