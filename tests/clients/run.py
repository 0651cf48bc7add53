#!/usr/bin/env python3
"""Clients that people use, through the proxy: does what they ask for come out right?

    python3 -m venv target/venv && target/venv/bin/pip install grpcio websockets
    tests/clients/run.py target/release/tradewind              all that are installed
    tests/clients/run.py target/release/tradewind curl wrk     some of them

Starts origins and two nodes of its own on free ports, and says of every claim whether it holds. A
client that is not installed is named as SKIPPED; one that is there and fails fails the run. Not a
benchmark, and not the suite of single duties, which is in `cargo test`.
"""

import sys
import tempfile

sys.dont_write_bytecode = True

import claims
import setting

# Each of these registers its claims.
import programs
import calls
import sockets
import browser


def main(binary, wanted):
    known = {client for client, *_ in claims.CLAIMS}
    if not set(wanted) <= known:
        sys.exit(f"clients: there are {', '.join(sorted(known))}")
    with tempfile.TemporaryDirectory() as folder:
        with setting.Setting(binary, folder) as nodes:
            passed, failed, skipped = claims.hold_all(nodes, wanted)
        if not nodes.ended_well():
            failed += 1
    print(f"clients: {passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
