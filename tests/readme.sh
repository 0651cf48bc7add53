#!/usr/bin/env bash
# Runs what the README tells people to run.
#
#   tests/readme.sh show NAME     prints the blocks marked NAME
#   tests/readme.sh test          runs the blocks marked `test`
#   tests/readme.sh tour          starts the block marked `start`, runs the blocks marked `tour`
#                                 against it in order, stops it, and wants it to end well
#
# A block is a ```sh fence under a line `<!-- ci: NAME -->`. All `tour` blocks run in one shell, from
# the top of the repository, and every command in them has to succeed.
set -euo pipefail
cd "$(dirname "$0")/.."

show() {
    awk -v mark="<!-- ci: $1 -->" '
        inside && /^```$/ { inside = 0; next }
        inside { print; next }
        /^<!-- ci: / { marked = ($0 == mark); next }
        marked && /^```sh$/ { inside = 1; marked = 0; found = 1 }
        END { if (!found) exit 1 }
    ' README.md || { echo "readme: no block is marked '$1'" >&2; exit 1; }
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

tour() {
    local start steps log from pid code
    start=$(show start)
    steps=$(show tour)
    for port in 7400 7401 7499 7501 8081 9001; do
        ! listens "$port" || { echo "readme: port $port is taken" >&2; exit 1; }
    done
    log=$(mktemp)
    # A build is no part of the start, and its time is none of the demo's.
    cargo build --release
    echo "readme: $ $start"
    setsid bash -euo pipefail -c "exec $start" >"$log" 2>&1 </dev/null &
    pid=$!
    trap 'kill -KILL -- "-$pid" 2>/dev/null || true' EXIT
    from=$SECONDS
    until listens 7499 && listens 8089; do
        if ! kill -0 "$pid" 2>/dev/null || [ $((SECONDS - from)) -gt 60 ]; then
            cat "$log" >&2
            echo "readme: the first command did not start" >&2
            exit 1
        fi
        sleep 0.1
    done
    echo "readme: listens after $((SECONDS - from)) s"
    if ! bash -euxo pipefail -c "$steps" </dev/null; then
        tail -40 "$log" >&2
        echo "readme: a command of the tour failed (the last one above)" >&2
        exit 1
    fi
    kill -TERM -- "-$pid"
    code=0
    wait "$pid" || code=$?
    trap - EXIT
    if [ "$code" != 0 ]; then
        tail -40 "$log" >&2
        echo "readme: the first command ended with $code when asked to stop" >&2
        exit 1
    fi
    rm -f "$log"
    echo "readme: all commands of the tour work"
}

case "${1:-}" in
    show) show "${2:?which block}" ;;
    test) bash -euxo pipefail -c "$(show test)" </dev/null ;;
    tour) tour ;;
    *)
        echo "usage: tests/readme.sh show NAME | test | tour" >&2
        exit 2
        ;;
esac
