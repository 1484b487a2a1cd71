# Every tool that CONTRIBUTING.md names, on Linux and macOS, but for a container engine, which needs a service, and busybox,
# whose tools would take the place of others.
{ pkgs }:
pkgs.mkShell {
  packages =
    with pkgs;
    [
      actionlint
      cargo
      cargo-audit
      cargo-auditable
      cargo-bloat
      cargo-cyclonedx
      cargo-deny
      clippy
      curl
      deadnix
      git
      haproxy
      jq
      nginx
      nixfmt
      nodejs
      openssl
      pgbouncer
      postgresql
      python3
      rust-analyzer
      rustc
      rustfmt
      sea-orm-cli
      shellcheck
      skopeo
      wrk
      zizmor
    ]
    ++ lib.optionals stdenv.hostPlatform.isLinux [
      # readelf
      binutils
      # bench/cost
      valgrind
      # nixpkgs has it for Linux alone; on macOS the tests take Chrome or Chromium as it is installed there.
      chromium
    ];
}
