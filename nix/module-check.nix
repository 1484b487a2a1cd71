# Holds the NixOS module to what docs/nixos.md promises; its output is the units that the module yields. Stand-ins take the
# place of NixOS' own options, whose types are those of nixpkgs' nixos/modules.
{ pkgs, package }:
let
  inherit (pkgs) lib;
  inherit (lib) mkOption types;

  # What the module sets of NixOS, as far as types matter to it.
  nixos =
    let
      any = mkOption {
        type = types.submodule { freeformType = with types; lazyAttrsOf anything; };
        default = { };
      };
      list = mkOption {
        type = types.listOf types.anything;
        default = [ ];
      };
    in
    {
      options = {
        assertions = list;
        system.checks = list;
        networking.firewall.allowedTCPPorts = list;
        systemd.services = mkOption {
          type = types.attrsOf any.type;
          default = { };
        };
        services.postgresql = {
          enable = lib.mkEnableOption "PostgreSQL";
          ensureDatabases = list;
          ensureUsers = list;
          settings.port = mkOption {
            type = types.port;
            default = 5432;
          };
        };
      };
    };

  evaluate =
    settings:
    (lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        (import ./module.nix { ${pkgs.stdenv.hostPlatform.system}.default = package; })
        nixos
        {
          services.bulkhead = {
            enable = true;
          }
          // settings;
        }
      ];
    }).config;
  unitOf = host: host.systemd.services.bulkhead;
  refused = host: map (a: a.message) (lib.filter (a: !a.assertion) host.assertions);
  fails = value: !(builtins.tryEval (builtins.deepSeq value true)).success;

  remote = evaluate {
    secrets.DATABASE_URL = "/run/secrets/database-url";
    secrets.COOKIE_SECRET = "/run/secrets/cookie";
    settings = {
      LOG_LEVEL = "info,sqlx=debug";
      DOCS_ENABLED = true;
      OIDC_SCOPES = "openid 100% \"email\"";
      SHUTDOWN_DELAY_SECONDS = 5;
      SHUTDOWN_DRAIN_SECONDS = 60;
    };
    openFirewall = true;
  };
  local = evaluate { database.createLocally = true; };
  mistaken = evaluate {
    secrets.DATABASE_URL = "/run/secrets/database-url";
    settings.DATABASE_MAX_CONNECTIONS = 0;
  };

  expectations = {
    "starts the package's binary" =
      (unitOf remote).serviceConfig.ExecStart == "${package}/bin/bulkhead start";
    "starts with the system" = (unitOf remote).wantedBy == [ "multi-user.target" ];
    "reads secrets as credentials" =
      lib.sort lib.lessThan (unitOf remote).serviceConfig.LoadCredential == [
        "COOKIE_SECRET:/run/secrets/cookie"
        "DATABASE_URL:/run/secrets/database-url"
      ]
      && (unitOf remote).environment.COOKIE_SECRET_FILE == "%d/COOKIE_SECRET"
      && !(unitOf remote).environment ? DATABASE_URL;
    "passes settings as the binary reads them" =
      removeAttrs (unitOf remote).environment [
        "COOKIE_SECRET_FILE"
        "DATABASE_URL_FILE"
      ] == {
        DOCS_ENABLED = "true";
        ENVIRONMENT = "production";
        LOG_LEVEL = "info,sqlx=debug";
        OIDC_SCOPES = "openid 100%% \"email\"";
        PORT = "8000";
        SHUTDOWN_DELAY_SECONDS = "5";
        SHUTDOWN_DRAIN_SECONDS = "60";
      };
    "lets a stop end by itself" = (unitOf remote).serviceConfig.TimeoutStopSec > 5 + 60 + 5 + 1;
    "leaves PostgreSQL alone" = !remote.services.postgresql.enable && (unitOf remote).requires == [ ];
    "opens the firewall on request only" =
      remote.networking.firewall.allowedTCPPorts == [ 8000 ]
      && local.networking.firewall.allowedTCPPorts == [ ];
    "makes the database and its owner" =
      local.services.postgresql == {
        enable = true;
        ensureDatabases = [ "bulkhead" ];
        ensureUsers = [
          {
            name = "bulkhead";
            ensureDBOwnership = true;
            ensureClauses.createrole = true;
          }
        ];
        settings.port = 5432;
      };
    "waits for the database" =
      lib.elem "postgresql.target" (unitOf local).after
      && (unitOf local).requires == [ "postgresql.target" ];
    "has the role's name" =
      (unitOf local).serviceConfig.User == "bulkhead"
      && (unitOf local).serviceConfig.DynamicUser
      &&
        (unitOf local).environment.DATABASE_URL
        == "postgres:///bulkhead?host=/run/postgresql&port=5432&user=bulkhead";
    "accepts either database" = refused remote == [ ] && refused local == [ ];
    "refuses none" = lib.length (refused (evaluate { })) == 1;
    "refuses two" =
      lib.length (
        refused (evaluate {
          database.createLocally = true;
          secrets.DATABASE_URL = "/run/secrets/database-url";
        })
      ) == 1;
    "refuses a secret in the store" =
      fails
        (evaluate { secrets.COOKIE_SECRET = "${pkgs.writeText "secret" ""}"; }).services.bulkhead.secrets;
    "refuses a secret that the binary does not read from a file" =
      fails
        (evaluate { secrets.OIDC_CLIENT_ID = "/run/x"; }).services.bulkhead.secrets;
    "refuses a port that needs a capability" =
      fails
        (evaluate { settings.PORT = 443; }).services.bulkhead.settings;
    "is off by default" = (evaluate { enable = false; }).systemd.services == { };
  };
  broken = lib.attrNames (lib.filterAttrs (_: holds: !holds) expectations);

  # As nixos/lib/systemd-lib.nix of nixpkgs writes a service (serviceToUnit, attrsToSection).
  render =
    unit:
    let
      text = value: if lib.isBool value then lib.boolToString value else toString value;
      lines = lib.mapAttrsToList (
        name: value: lib.concatMapStrings (v: "${name}=${text v}\n") (lib.toList value)
      );
    in
    lib.concatStrings (
      [ "[Unit]\nDescription=${unit.description}\n" ]
      ++ lines {
        After = toString unit.after;
        Requires = toString unit.requires;
      }
      ++ [ "\n[Service]\n" ]
      ++ lib.mapAttrsToList (
        name: value: "Environment=${builtins.toJSON "${name}=${value}"}\n"
      ) unit.environment
      ++ lines unit.serviceConfig
    );
in
if broken != [ ] then
  throw "nix/module.nix: it no longer ${lib.concatStringsSep ", nor " broken}"
else
  pkgs.runCommand "bulkhead-module"
    { nativeBuildInputs = lib.optional (pkgs ? systemd) pkgs.systemd; }
    ''
      # The binary itself checks the settings: good ones pass, a wrong one is named.
      good() ( out=$TMPDIR/good; ${(lib.head remote.system.checks).buildCommand} )
      wrong() ( out=$TMPDIR/wrong; ${(lib.head mistaken.system.checks).buildCommand} )
      good
      if wrong 2>$TMPDIR/mistakes; then echo "a wrong setting passes"; exit 1; fi
      grep DATABASE_MAX_CONNECTIONS $TMPDIR/mistakes

      mkdir $out
      cp ${pkgs.writeText "unit" (render (unitOf remote))} $out/bulkhead.service
      cp ${pkgs.writeText "unit" (render (unitOf local))} $out/bulkhead-local.service
      bash ${../scripts/unit-exposure} $out/*.service
    ''
