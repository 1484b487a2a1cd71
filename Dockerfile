# The image where Nix is not to be had. Same contents and configuration as `nix build .#image`.
# Build with scripts/image, which fills in the labels, or plainly: docker build -t bulkhead .

# A mirror or a stand-in may be named: --build-arg RUST_IMAGE=registry.example/rust:1.95-slim-bookworm
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082

# Compiles on the machine's own processor, whatever the image is for: `docker build --platform linux/arm64` needs no emulation.
# Where the builder sets neither variable (podman 4.3), it compiles for the processor that it runs on.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS compiler
WORKDIR /build
ENV PATH="/tools/bin:${PATH}"
COPY deploy/build deploy/build
# Writes into the binary which crates it is made of.
RUN deploy/build/install-tool cargo-auditable
FROM compiler AS compiler-amd64
ENV TARGET=x86_64-unknown-linux-gnu
FROM compiler AS compiler-arm64
ENV TARGET=aarch64-unknown-linux-gnu
FROM compiler AS compiler-own
# Not empty: podman would commit the stage anew for every commit, and take nothing after it from its cache.
ENV TARGET=""

FROM compiler-${TARGETARCH:-own} AS build
# quick, or release: smaller and faster, but a longer wait after every edit (docs/image.md).
ARG PROFILE=quick
# What .cargo/config.toml names.
COPY deploy/swagger-ui deploy/swagger-ui

# The dependencies in a layer of their own: it holds until a manifest or the lock file changes.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY cli-docs/Cargo.toml cli-docs/
COPY image-tools/Cargo.toml image-tools/
COPY migration/Cargo.toml migration/
COPY migrator/Cargo.toml migrator/
COPY tests/support/Cargo.toml tests/support/
COPY tests/image/Cargo.toml tests/image/
COPY tests/migrations/Cargo.toml tests/migrations/
RUN deploy/build/stand-ins \
 && deploy/build/compile "${PROFILE}" ${TARGET}

# The sources; touched, since a checkout may give them a time before the stand-ins above. The migrations come first: who edits
# src does not wait for them.
COPY migrator/src migrator/src
COPY migration/src migration/src
RUN find migrator/src migration/src -name '*.rs' -exec touch {} + \
 && deploy/build/compile "${PROFILE}" ${TARGET}
COPY flake.lock build.rs ./
COPY src src
RUN find build.rs src -name '*.rs' -exec touch {} + \
 && deploy/build/compile "${PROFILE}" ${TARGET}

COPY deploy/rootfs/etc etc
# The commit's time, for every file: what has the same content is the same layer.
ARG SOURCE_DATE_EPOCH=1
RUN install -D -m 0555 bulkhead /rootfs/bin/bulkhead \
 && install -D -m 0444 -t /rootfs/etc etc/passwd etc/group \
 && install -D -m 0444 /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ca-certificates.crt \
 && find /rootfs -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

FROM build AS crates
RUN deploy/build/install-tool cargo-cyclonedx
COPY scripts/sbom scripts/
RUN scripts/sbom gather /crates

# What the binary is made of, for scripts/image to make an SBOM of; not part of the image.
FROM scratch AS sbom
COPY --from=crates /crates /crates

FROM scratch
# Railway hands the revision to builds that ask for it, where it deploys from a repository.
ARG RAILWAY_GIT_COMMIT_SHA=
ARG SOURCE_REVISION=${RAILWAY_GIT_COMMIT_SHA:-unknown}
ARG PROFILE=quick
# scripts/image adds when the commit was made, and the hashes of its lock files. `bulkhead --version` names those of every
# image.
LABEL org.opencontainers.image.title="bulkhead" \
      org.opencontainers.image.description="A multi-tenant HTTP API for health data" \
      org.opencontainers.image.source="https://github.com/bulkhead-rs/bulkhead" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${SOURCE_REVISION}" \
      io.github.bulkhead-rs.builder="dockerfile" \
      io.github.bulkhead-rs.profile="${PROFILE}"
# After the labels: podman would take a layer of an earlier commit, with that commit's time on its files, from its cache.
COPY --from=build /rootfs /
ENV ENVIRONMENT=production \
    SOURCE_REVISION=${SOURCE_REVISION}
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["/bin/bulkhead", "healthcheck"]
ENTRYPOINT ["/bin/bulkhead"]
CMD ["start"]
