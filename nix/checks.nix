# What `nix flake check` holds a change to; the same as scripts/test, as far as a sandbox reaches.
{ pkgs, bulkhead }:
let
  inherit (bulkhead) craneLib development;
in
{
  inherit (bulkhead) package;

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

  # Licences, bans and sources; advisories need a database from the network.
  deny = craneLib.cargoDeny {
    inherit (development) src pname version;
    cargoDenyChecks = "bans licenses sources";
  };
}
