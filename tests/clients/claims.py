"""What is claimed about clients, and the counting of it.

A claim is a function that fails by raising. Not a test framework: no fixtures, no discovery, no
retries. Invariant: every claim ends in exactly one of passed, failed and skipped, and a client that
is missing is named.
"""

import importlib.util
import shutil
import subprocess
import time
import traceback

CLAIMS = []


def claim(client, says, programs=(), modules=()):
    """Registers a function; it is skipped where one of its programs or modules is missing."""

    def register(function):
        CLAIMS.append((client, says, list(programs), list(modules), function))
        return function

    return register


class Skip(Exception):
    """A claim that cannot be looked at with the version of the client that is here."""


def check(holds, *found):
    """Fails with what was found."""
    if not holds:
        raise AssertionError(" ".join(str(part) for part in found))


def equal(found, wanted, what=""):
    check(found == wanted, f"{what}: {found!r} instead of {wanted!r}")


def run(*command, timeout=60, code=0, input=None):
    """Runs a program to its end and gives what it printed."""
    done = subprocess.run(
        [str(word) for word in command],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    text = done.stdout.decode(errors="replace")
    check(done.returncode == code, f"ended with {done.returncode}, not {code}:", text[-1500:])
    return text


def hold_all(setting, wanted):
    """Looks at every claim whose client is wanted; returns how many passed, failed, were skipped."""
    passed = failed = skipped = 0
    for client, says, programs, modules, function in CLAIMS:
        if wanted and client not in wanted:
            continue
        missing = [name for name in programs if shutil.which(name) is None]
        missing += [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            print(f"clients: {client}: {says}: SKIPPED: {', '.join(missing)} is not installed")
            skipped += 1
            continue
        begun = time.monotonic()
        try:
            function(setting)
        except Skip as reason:
            print(f"clients: {client}: {says}: SKIPPED: {reason}")
            skipped += 1
            continue
        except Exception:
            print(f"clients: {client}: {says}: FAILED")
            traceback.print_exc()
            failed += 1
            continue
        print(f"clients: {client}: {says} ({time.monotonic() - begun:.1f} s)", flush=True)
        passed += 1
    return passed, failed, skipped
