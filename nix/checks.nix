# What `nix flake check` holds a change to; the same as scripts/test, as far as a sandbox reaches.
{ pkgs, bulkhead }:
let
  inherit (bulkhead) craneLib development;

  lint =
    name: nativeBuildInputs: commands:
    pkgs.runCommand name { inherit nativeBuildInputs; } ''
      ${commands}
      touch $out
    '';
in
{
  inherit (bulkhead) package sbom;

  module = import ./module-check.nix {
    inherit pkgs;
    inherit (bulkhead) package;
  };

  # The flake's own files: their format, and nothing in them that nobody uses.
  nixfmt = lint "nixfmt" [ pkgs.nixfmt pkgs.deadnix ] ''
    nixfmt --check ${../flake.nix} ${./.}/*.nix
    deadnix --fail ${../flake.nix} ${./.}
  '';

  doc = craneLib.cargoDoc (
    development
    // {
      # Of targets cargo doc knows the libraries and the binaries alone.
      cargoExtraArgs = "--locked --workspace";
      cargoDocExtraArgs = "--no-deps";
      RUSTDOCFLAGS = "--deny warnings";
    }
  );

  fmt = craneLib.cargoFmt { inherit (development) src pname version; };

  clippy = craneLib.cargoClippy (development // { cargoClippyExtraArgs = "-- --deny warnings"; });

  # On SQLite, and on a PostgreSQL that the tests start themselves.
  tests = craneLib.cargoTest (
    development
    // {
      doCheck = true;
      cargoExtraArgs = "--locked --workspace --exclude image-contract";
      nativeBuildInputs = [
        pkgs.curl
        pkgs.haproxy
        pkgs.nginx
        pkgs.openssl
        pkgs.pgbouncer
        pkgs.postgresql
        # A browser, where there is one, writes to its home.
        pkgs.writableTmpDirAsHomeHook
      ];
    }
  );

  # Licences, bans and sources; advisories need a database from the network, and have a workflow.
  deny = craneLib.cargoDeny {
    inherit (development) src pname version;
    cargoDenyChecks = "bans licenses sources";
  };

  # This actionlint runs shellcheck on what the workflows run. It takes a folder with .git for a project.
  workflows = lint "workflows" [ pkgs.actionlint pkgs.shellcheck pkgs.zizmor ] ''
    mkdir .git
    cp -r ${../.github} .github
    actionlint
    zizmor --offline --quiet .github/workflows
  '';
}
