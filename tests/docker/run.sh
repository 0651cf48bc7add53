#!/usr/bin/env bash
# The compose file, started and broken: what the README promises of a fleet in containers.
#
#   tests/docker/run.sh                  builds the static binary, the image and the fleet
#
#   TRADEWIND_BINARY=FILE                takes this static binary instead of building one
#   TRADEWIND_IMAGE=NAME                 takes this image, builds nothing (then the client is asked
#                                        for with TRADEWIND_BINARY, or taken out of the image)
#   TRADEWIND_START_DOCKERD=1            starts a daemon when none answers (root only)
#   KEEP=1                               leaves the fleet running
#
# Prints "SKIPPED: no docker daemon" and succeeds where no daemon answers. Uses the ports that
# docker-compose.yml publishes, so nothing else may listen there.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "docker: $*"; }
fail() {
    printf '%s\n' "docker: FAILED: $*" >&2
    if [ -n "${up:-}" ]; then
        "${compose[@]}" ps || true
        "${compose[@]}" logs --no-color --tail 15 || true
    fi
    exit 1
}

# --- a daemon -----------------------------------------------------------------------------------

dockerd_pid=
if ! docker info >/dev/null 2>&1 && [ "${TRADEWIND_START_DOCKERD:-}" = 1 ] && [ "$(id -u)" = 0 ] &&
    command -v dockerd >/dev/null; then
    say "starting dockerd"
    dockerd >"${TMPDIR:-/tmp}/tradewind-dockerd.log" 2>&1 &
    dockerd_pid=$!
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && break
        sleep 1
    done
fi
if ! docker info >/dev/null 2>&1; then
    echo "################################################################"
    echo "SKIPPED: no docker daemon"
    echo "################################################################"
    exit 0
fi
if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    echo "SKIPPED: no docker daemon with compose (neither 'docker compose' nor docker-compose)"
    exit 0
fi

scratch=$(mktemp -d)
load_pid=
cleanup() {
    code=$?
    trap - EXIT
    [ -z "$load_pid" ] || kill "$load_pid" 2>/dev/null || true
    if [ "${KEEP:-}" != 1 ] && [ -n "${up:-}" ]; then
        "${compose[@]}" down --volumes --timeout 5 >/dev/null 2>&1 || true
    fi
    [ -z "$dockerd_pid" ] || kill "$dockerd_pid" 2>/dev/null || true
    rm -rf "$scratch"
    exit "$code"
}
trap cleanup EXIT

# --- binary and image ---------------------------------------------------------------------------

binary=${TRADEWIND_BINARY:-}
if [ -z "${TRADEWIND_IMAGE:-}" ]; then
    if [ -z "$binary" ]; then
        triple=$(rustc -vV | sed -n 's/^host: //p')
        say "building the static binary for $triple"
        RUSTFLAGS='-C target-feature=+crt-static' \
            "${CARGO:-cargo}" build --locked --release --target "$triple" --bin tradewind
        binary=${CARGO_TARGET_DIR:-target}/$triple/release/tradewind
    fi
    rm -rf dist/image
    mkdir -p dist/image/data dist/image/run/tradewind
    install -m 755 "$binary" dist/image/tradewind
    command -v strip >/dev/null && strip dist/image/tradewind
    export TRADEWIND_IMAGE=tradewind:prebuilt
    say "building the image $TRADEWIND_IMAGE"
    DOCKER_BUILDKIT=0 docker build --quiet --target prebuilt --tag "$TRADEWIND_IMAGE" . 2>/dev/null
fi
if [ -z "$binary" ]; then
    id=$(docker create "$TRADEWIND_IMAGE")
    docker cp "$id:/tradewind" "$scratch/tradewind"
    docker rm "$id" >/dev/null
    binary=$scratch/tradewind
fi
tradewind() { "$binary" "$@"; }

[ "$(docker inspect --format '{{.Config.User}}' "$TRADEWIND_IMAGE")" = 65532:65532 ] ||
    fail "the image does not run as a numeric user other than root"
docker run --rm --read-only --cap-drop ALL --network none "$TRADEWIND_IMAGE" version ||
    fail "the binary does not run FROM scratch"

# --- the fleet ----------------------------------------------------------------------------------

export COMPOSE_PROJECT_NAME=tradewind-test-$$
nodes=(fra1 fra2 iad1 iad2 sin1 sin2)
regions=(fra fra iad iad sin sin)
traffic() { echo "http://127.0.0.1:$((8081 + $1))"; }
peer() { echo "http://127.0.0.1:$((7501 + $1))"; }

# until_ok SECONDS WHAT COMMAND…: polls until the command succeeds.
until_ok() {
    local limit=$1 what=$2 from=$SECONDS
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $((SECONDS - from)) -lt "$limit" ] || fail "$what: not within $limit s"
        sleep 0.2
    done
    say "$what: after $((SECONDS - from)) s"
}

container() { "${compose[@]}" ps -a -q "$1"; }
healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(container "$1")")" = healthy ]; }
ended_well() { [ "$(docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' \
    "$(container "$1")")" = "exited 0" ]; }

say "starting the fleet"
up=1
"${compose[@]}" up --no-build --detach || fail "up"
for service in orchestrator "${nodes[@]}" \
    target-fra-1 target-fra-2 target-iad-1 target-iad-2 target-sin-1 target-sin-2; do
    until_ok 90 "$service healthy" healthy "$service"
done
until_ok 60 "rules applied" ended_well rules

docker cp "$(container orchestrator):/run/tradewind/token" "$scratch/token"
chmod 600 "$scratch/token"
auth="authorization: Bearer $(tr -d '\n' <"$scratch/token")"
api() { curl --silent --show-error --fail --max-time 5 --header "$auth" "$@"; }

# --- who asks without the token gets nothing ----------------------------------------------------

code=$(curl -s -o /dev/null -w '%{http_code}' --max-time 5 "$(peer 0)/v1/configuration")
[ "$code" = 401 ] || fail "the peer port answered $code without a token"
say "control asks for the token"

# --- each region is served by its own targets ---------------------------------------------------

served_by_own_region() {
    local at=$1 own=0
    for _ in $(seq 20); do
        curl -sf --max-time 5 -D - "$(traffic "$at")/" | grep -qiw "${regions[$at]}" &&
            own=$((own + 1))
    done
    [ "$own" -ge 18 ]
}
for at in 0 2 4; do
    until_ok 30 "${nodes[$at]} uses targets in ${regions[$at]}" served_by_own_region "$at"
done

# --- a rule reaches all -------------------------------------------------------------------------

cat >"$scratch/rule.yaml" <<'RULE'
id: pushed
data:
  match: { any: [{ path: { exact: /pushed } }] }
  respond: { status: 200, body: "pushed" }
RULE
tradewind apply --file "$scratch/rule.yaml" --orchestrator http://127.0.0.1:7400 \
    --token-file "$scratch/token" --wait=all || fail "apply --wait=all"
for at in "${!nodes[@]}"; do
    [ "$(curl -sf --max-time 5 "$(traffic "$at")/pushed")" = pushed ] ||
        fail "${nodes[$at]} does not have the rule that was waited for"
done
say "a rule reached ${#nodes[@]}/${#nodes[@]} nodes"

# --- the orchestrator dies ----------------------------------------------------------------------

: >"$scratch/failures"
: >"$scratch/requests"
(
    while :; do
        for at in "${!nodes[@]}"; do
            echo >>"$scratch/requests"
            curl -sf --max-time 5 -o /dev/null "$(traffic "$at")/" ||
                echo "${nodes[$at]}" >>"$scratch/failures"
        done
    done
) &
load_pid=$!

"${compose[@]}" kill orchestrator >/dev/null 2>&1
[ -z "$(docker ps -q --filter "id=$(container orchestrator)" --filter status=running)" ] ||
    fail "the orchestrator still runs"
say "the orchestrator is gone"
api --request POST --header 'content-type: application/json' --max-time 20 --data-binary \
    '{"data": {"match": {"any": [{"path": {"exact": "/by-hand"}}]},
      "respond": {"status": 200, "body": "by hand"}}}' \
    "$(peer 0)/v1/configuration/by-hand" || fail "POST at ${nodes[0]} without an orchestrator"
echo
by_hand() { [ "$(curl -sf --max-time 5 "$(traffic "$1")/by-hand")" = "by hand" ]; }
for at in "${!nodes[@]}"; do
    until_ok 5 "${nodes[$at]} has the rule made by hand" by_hand "$at"
done

kill "$load_pid"
wait "$load_pid" 2>/dev/null || true
load_pid=
[ -s "$scratch/requests" ] || fail "no request was made meanwhile"
[ ! -s "$scratch/failures" ] || fail "failed requests: $(sort "$scratch/failures" | uniq -c | tr '\n' ' ')"
say "no failed request among $(wc -l <"$scratch/requests")"

"${compose[@]}" kill iad1 >/dev/null 2>&1
"${compose[@]}" start iad1 >/dev/null
until_ok 20 "iad1 serves the rule from its disk" by_hand 2

# --- and comes back -----------------------------------------------------------------------------

"${compose[@]}" start orchestrator >/dev/null
until_ok 30 "orchestrator healthy again" healthy orchestrator
adopted() { api "$(peer "$1")/v1/configuration/by-hand" | grep -q '"origin": *"ledger"'; }
for at in "${!nodes[@]}"; do
    until_ok 30 "${nodes[$at]} knows that the rule was adopted" adopted "$at"
done

say "stopping the fleet"
"${compose[@]}" stop --timeout 20 >/dev/null 2>&1
for service in orchestrator "${nodes[@]}"; do
    code=$(docker inspect --format '{{.State.ExitCode}}' \
        "$(docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
            --filter "label=com.docker.compose.service=$service")")
    [ "$code" = 0 ] || fail "$service ended with $code when asked to stop"
done
say "all done"
