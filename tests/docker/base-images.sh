#!/usr/bin/env bash
# Makes the base image that the Dockerfile names, where no image registry answers.
#
#   tests/docker/base-images.sh [NAME]            (default: what `ARG BASE` in the Dockerfile says)
#
# Debian by debootstrap from the mirror that this machine uses, the Rust toolchain of this machine,
# and its certificates, so that a build inside sees what a build outside sees. Needs root. Does
# nothing when the image is there. Not a replacement for the real one: only for tests.
set -euo pipefail
cd "$(dirname "$0")/../.."

name=${1:-$(sed -n 's/^ARG BASE=//p' Dockerfile)}
if docker image inspect "$name" >/dev/null 2>&1; then
    echo "base-images: $name is there"
    exit 0
fi
if [ "${FORCE_LOCAL:-}" != 1 ] && timeout 120 docker pull --quiet "$name" 2>/dev/null; then
    echo "base-images: pulled $name"
    exit 0
fi
[ "$(id -u)" = 0 ] || { echo "base-images: needs root" >&2; exit 1; }
command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap

# The first Debian source of apt, in either format, and the suite that runs here.
sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -n 's/^deb \(\[[^]]*\] \)\?\(http[^ ]*\).*/\2/p'
    cat /etc/apt/sources.list.d/*.sources 2>/dev/null | sed -n 's/^URIs: *\([^ ]*\).*/\1/p')
mirror=$(grep -m1 '/debian/\?$' <<<"$sources") ||
    { echo "base-images: apt names no Debian mirror" >&2; exit 1; }
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
echo "base-images: $suite from $mirror"
debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev,make \
    "$suite" "$root" "$mirror" >"$root.log" 2>&1 || { tail -20 "$root.log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root.log"

toolchain=$(rustc --print sysroot)
mkdir -p "$root/usr/local"
cp -a "$toolchain/bin" "$toolchain/lib" "$root/usr/local/"
rm -rf "$root/usr/local/lib/rustlib/src" "$root/usr/local/share/doc"
for bundle in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt; do
    if [ -f "$bundle" ]; then
        cp --remove-destination -L "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"
        break
    fi
done

tar -C "$root" -c . | docker import \
    --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' \
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
    --change 'ENV CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt' \
    --change 'ENV CARGO_HOME=/usr/local/cargo' \
    - "$name" >/dev/null
docker run --rm "$name" cargo --version
echo "base-images: made $name"
