# syntax=docker/dockerfile:1
#
# For both architectures: docker buildx build --platform linux/amd64,linux/arm64 .
#
# The digests are those of the images for all platforms. To update one: docker buildx imagetools inspect debian:trixie-slim

# The pages and the client library. npm's packages are in a separate layer, which is reused until the lock file changes.
FROM node:24.21.0-trixie-slim@sha256:8ec5d7557396cfe32d21c3f9c13072355ceab22b584578ca4bb28af31120cffe AS web
WORKDIR /build/web
COPY web/package.json web/package-lock.json ./
COPY web/client/package.json client/
COPY web/app/package.json app/
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts
COPY web .
RUN npm run build

# The image has gcc and libc's headers, which the bundled SQLite and aws-lc need; jemalloc also needs make.
FROM rust:1.95.0-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0 AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# jemalloc compiles in the size of a page of memory. Kernels of arm64 have pages of 4 to 64 KiB; this works on all of them.
ARG TARGETARCH
COPY . .
COPY --from=web /build/web/app/dist web/app/dist
# Compiled dependencies stay in the cache. The package itself is rebuilt each time, because cargo compares the times of
# files, and a checkout may be older than the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target,sharing=locked \
    if [ "$TARGETARCH" = arm64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && cargo clean --release --locked --package breathing-room \
    && cargo build --release --locked --features cluster,jemalloc --bin breathing-room \
    && install target/release/breathing-room /usr/local/bin/breathing-room

# The same Debian as above, for its libc. The hub's only outgoing connection is that to NATS, whose certificate may be of a
# public authority.
FROM debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f
LABEL org.opencontainers.image.title="breathing-room" \
    org.opencontainers.image.description="A self-hosted, real-time presence hub." \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 breathing-room \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin breathing-room \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data
COPY --from=build /usr/local/bin/breathing-room /usr/local/bin/breathing-room
# Fly gives a volume's root to this user when it mounts it, and Docker gives a new named volume the owner of the folder
# it covers, so no entrypoint has to start as root. A bind mount must belong to 10001. The user is a number for runAsNonRoot.
USER 10001:10001
ENV LISTEN=0.0.0.0:8080 \
    DATABASE_URL=sqlite:///data/breathing-room.db
EXPOSE 8080
STOPSIGNAL SIGTERM
# For Docker and Compose. A degraded hub is unhealthy, but do not restart it for that: its presence works.
HEALTHCHECK --interval=15s --timeout=3s --start-period=10s CMD ["/usr/local/bin/breathing-room", "health"]
ENTRYPOINT ["/usr/local/bin/breathing-room"]
