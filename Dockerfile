# One image for every role: the static binary, two folders to mount over, nothing else.
#
#   docker build .                       builds the binary inside, from the locked dependencies
#   docker build --target prebuilt .     takes the one in dist/image/ (tests/docker/run.sh makes it)
#
# Plain instructions only, so that the classic builder and BuildKit give the same image.
ARG BASE=rust:1.95-bookworm

# What both images say about themselves. The user has a number, because there is no passwd file.
FROM scratch AS runtime
LABEL org.opencontainers.image.title="tradewind" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 65532:65532
ENV TRADEWIND_DATA=/data
EXPOSE 8080 7500 7400 7401
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/tradewind", "healthcheck"]
ENTRYPOINT ["/tradewind"]

# The pattern lets this stage pass where dist/image/ is not there: the classic builder runs every
# stage on the way to the last one.
FROM runtime AS prebuilt
COPY --chown=65532:65532 LICENSE dist/imag[e] /

FROM ${BASE} AS build
ARG PROFILE=dist
WORKDIR /src
COPY . .
RUN set -eu; \
    triple=$(rustc -vV | sed -n 's/^host: //p'); \
    RUSTFLAGS='-C target-feature=+crt-static' \
        cargo build --locked --profile "$PROFILE" --target "$triple" --bin tradewind; \
    mkdir -p /image/data /image/run/tradewind; \
    cp LICENSE "target/$triple/$PROFILE/tradewind" /image/

# The folders belong to the user, and so do the volumes that are mounted over them for the first time.
FROM runtime
COPY --from=build --chown=65532:65532 /image /
