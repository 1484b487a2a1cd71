# What `nix flake check` holds a change to; the same as scripts/test, as far as a sandbox reaches.
{ pkgs, bulkhead }:
let
  inherit (bulkhead) craneLib development;

  # What a nixpkgs of one's own has not got is skipped by name.
  lint =
    name: nativeBuildInputs: commands:
    pkgs.runCommand name { inherit nativeBuildInputs; } ''
      have() { command -v "$1" >/dev/null || { echo "SKIPPED: no $1 in this nixpkgs"; false; }; }
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
    if have nixfmt; then nixfmt --check ${../flake.nix} ${./.}/*.nix; fi
    if have deadnix; then deadnix --fail ${../flake.nix} ${./.}; fi
  '';

  doc = craneLib.cargoDoc (development // { cargoDocExtraArgs = "--workspace --no-deps"; RUSTDOCFLAGS = "--deny warnings"; });

  fmt = craneLib.cargoFmt { inherit (development) src pname version; };

  clippy = craneLib.cargoClippy (development // { cargoClippyExtraArgs = "-- --deny warnings"; });

  # On SQLite, and on a PostgreSQL that the tests start themselves.
  tests = craneLib.cargoTest (
    development
    // {
      doCheck = true;
      cargoExtraArgs = "--locked --workspace --exclude image-contract";
      nativeBuildInputs = [
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
  workflows = lint "workflows" [ pkgs.actionlint pkgs.zizmor ] ''
    mkdir .git
    cp -r ${../.github} .github
    if have actionlint; then actionlint; fi
    if have zizmor; then zizmor --offline --quiet .github/workflows; fi
  '';
}
