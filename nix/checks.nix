# What `nix flake check` holds a change to; the same as scripts/test, as far as a sandbox reaches.
{ pkgs, bulkhead }:
let
  inherit (bulkhead) craneLib development;
in
{
  inherit (bulkhead) package sbom;

  # The flake's own files: their format, and nothing in them that nobody uses. A nixpkgs without these programs says so.
  nixfmt = pkgs.runCommand "nixfmt" { nativeBuildInputs = [ pkgs.nixfmt pkgs.deadnix ]; } ''
    for program in "nixfmt --check" "deadnix --fail"; do
      if command -v ''${program%% *} >/dev/null; then
        $program ${../flake.nix} ${./.}/*.nix
      else
        echo "SKIPPED: no ''${program%% *} in this nixpkgs"
      fi
    done
    touch $out
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
  workflows =
    pkgs.runCommand "workflows"
      {
        nativeBuildInputs = [
          pkgs.actionlint
          pkgs.zizmor
        ];
      }
      ''
        mkdir .git
        cp -r ${../.github} .github
        actionlint
        zizmor --offline .github/workflows
        touch $out
      '';
}
