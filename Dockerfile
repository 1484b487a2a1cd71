# The image where Nix is not to be had. Same contents and configuration as `nix build .#image`.
# Build with scripts/image, which fills in the labels, or plainly: docker build -t bulkhead .

# A mirror or a stand-in may be named: --build-arg RUST_IMAGE=registry.example/rust:1.95-slim-bookworm
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082

FROM ${RUST_IMAGE} AS build
# Tools in a layer of their own. cargo-auditable writes into the binary which crates it is made of; cargo-cyclonedx
# writes the same as an SBOM.
RUN cargo install --locked --root /tools cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9 && rm -rf "${CARGO_HOME}/registry"
ENV PATH="/tools/bin:${PATH}"
WORKDIR /build
# Static, so that the image needs no library; without the paths of this build, so that it is the same everywhere; with
# its relocations packed, which takes half a megabyte off.
# With --target given, these flags do not reach build scripts and procedural macros.
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs --remap-path-prefix=/build=. --remap-path-prefix=/usr/local/cargo=cargo"
# C code, too: assertions name their files.
ENV CFLAGS="-ffile-prefix-map=/build=. -ffile-prefix-map=/usr/local/cargo=cargo"

# deploy/swagger-ui.md says what for.
ENV SWAGGER_UI_OVERWRITE_FOLDER=/build/deploy/swagger-ui
COPY deploy/swagger-ui deploy/swagger-ui

# The dependencies in a layer of their own: it holds until a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY image-tools/Cargo.toml image-tools/
COPY migration/Cargo.toml migration/
COPY tests/support/Cargo.toml tests/support/
COPY tests/image/Cargo.toml tests/image/
COPY tests/migrations/Cargo.toml tests/migrations/
RUN mkdir -p src image-tools/src image-tools/tests/compare migration/src tests/support/src tests/http bench \
 && touch src/lib.rs image-tools/src/lib.rs migration/src/lib.rs tests/support/src/lib.rs tests/image/lib.rs \
 && echo 'fn main() {}' | tee build.rs src/main.rs image-tools/src/main.rs image-tools/tests/compare/main.rs tests/http/main.rs \
    tests/image/main.rs bench/hot_paths.rs tests/migrations/main.rs tests/migrations/bench.rs > tests/migrations/fixture.rs \
 && cargo auditable build --release --locked --package bulkhead --target "$(rustc --print host-tuple)"

# The sources; touched, since a checkout may give them a time before the stand-ins above.
COPY flake.lock build.rs ./
COPY migration/src migration/src
COPY src src
RUN find build.rs src migration/src -name '*.rs' -exec touch {} + \
 && cargo auditable build --release --locked --package bulkhead --target "$(rustc --print host-tuple)"

COPY deploy/rootfs/etc etc
# The commit's time, for every file: what has the same content is the same layer.
ARG SOURCE_DATE_EPOCH=1
RUN install -D -m 0555 "target/$(rustc --print host-tuple)/release/bulkhead" /rootfs/bin/bulkhead \
 && install -D -m 0444 -t /rootfs/etc etc/passwd etc/group \
 && install -D -m 0444 /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ca-certificates.crt \
 && find /rootfs -exec touch --no-dereference --date "@${SOURCE_DATE_EPOCH}" {} +

FROM build AS crates
COPY scripts/sbom scripts/
RUN scripts/sbom gather /crates

# What the binary is made of, for scripts/image to make an SBOM of; not part of the image.
FROM scratch AS sbom
COPY --from=crates /crates /crates

FROM scratch
COPY --from=build /rootfs /
# Railway hands the revision to builds that ask for it.
ARG RAILWAY_GIT_COMMIT_SHA
ARG SOURCE_REVISION=${RAILWAY_GIT_COMMIT_SHA:-unknown}
ARG VERSION=0.1.0
ARG CREATED=1970-01-01T00:00:00Z
ARG CARGO_LOCK_SHA256=unknown
ARG FLAKE_LOCK_SHA256=unknown
LABEL org.opencontainers.image.title="bulkhead" \
      org.opencontainers.image.description="A multi-tenant HTTP API for health data" \
      org.opencontainers.image.source="https://github.com/bulkhead-rs/bulkhead" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${SOURCE_REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      io.github.bulkhead-rs.cargo-lock-sha256="${CARGO_LOCK_SHA256}" \
      io.github.bulkhead-rs.flake-lock-sha256="${FLAKE_LOCK_SHA256}"
ENV ENVIRONMENT=production \
    SOURCE_REVISION=${SOURCE_REVISION}
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["/bin/bulkhead", "healthcheck"]
ENTRYPOINT ["/bin/bulkhead"]
CMD ["start"]
