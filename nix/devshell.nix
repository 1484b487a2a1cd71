# Everything CONTRIBUTING.md names, on Linux and macOS.
{ pkgs }:
pkgs.mkShell {
  packages = with pkgs; [
    actionlint
    cargo
    cargo-auditable
    cargo-bloat
    cargo-cyclonedx
    cargo-deny
    clippy
    deadnix
    diffoscope
    jq
    nixfmt
    nodejs
    pgbouncer
    postgresql
    rust-analyzer
    rustc
    rustfmt
    sea-orm-cli
    shellcheck
    zizmor
  ];
}
