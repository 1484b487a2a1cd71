# `services.bulkhead`: the API as a systemd service and, where wanted, its database on the same host. See docs/nixos.md.
packages:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.services.bulkhead;
  postgres = config.services.postgresql;
  secrets = lib.filterAttrs (_: path: path != null) cfg.secrets;
  local = lib.optionals cfg.database.createLocally;

  # The socket's name holds the port.
  socket = "postgres:///bulkhead?host=/run/postgresql&port=${toString postgres.settings.port}&user=bulkhead";
  plain = lib.mapAttrs (_: value: if lib.isBool value then lib.boolToString value else toString value) (
    cfg.settings // lib.optionalAttrs cfg.database.createLocally { DATABASE_URL = socket; }
  );

  # The secrets themselves are not known when the system is built: what stands in for them is a value of the right form.
  standIns = lib.mapAttrs (
    name: _: if lib.hasSuffix "_URL" name then "postgres://host/name" else lib.fixedWidthString 32 "x" ""
  ) secrets;
  assign = lib.mapAttrsToList (name: value: "${name}=${value}");
  settingsCheck = pkgs.runCommand "bulkhead-settings" { } ''
    env -i ${lib.escapeShellArgs (assign plain ++ assign standIns)} ${lib.getExe cfg.package} config check >$out
  '';
in
{
  options.services.bulkhead = {
    enable = lib.mkEnableOption "Bulkhead, a multi-tenant HTTP API for health data";

    package = mkOption {
      type = types.package;
      default = packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalExpression "the package of Bulkhead's own flake";
      description = "The package that holds `bin/bulkhead`.";
    };

    settings = mkOption {
      default = { };
      example.OIDC_ISSUER_URL = "https://login.example.org";
      description = "The environment variables of docs/settings.md. They are readable by everyone on the host.";
      type = types.submodule {
        freeformType = with types; attrsOf (oneOf [ str int bool ]);
        options = {
          ENVIRONMENT = mkOption {
            type = types.enum [ "development" "staging" "production" ];
            default = "production";
            description = "What kind of deployment this is.";
          };
          PORT = mkOption {
            type = types.ints.between 1024 65535;
            default = 8000;
            description = "The TCP port to listen on. The service may not listen below 1024.";
          };
          SHUTDOWN_DELAY_SECONDS = mkOption {
            type = types.ints.u32;
            default = 0;
            description = "How long to go on accepting requests after the signal to stop.";
          };
          SHUTDOWN_DRAIN_SECONDS = mkOption {
            type = types.ints.u32;
            default = 30;
            description = "How long requests in flight may take to end after that.";
          };
        };
      };
    };

    secrets = lib.genAttrs [ "DATABASE_URL" "MIGRATION_DATABASE_URL" "OIDC_CLIENT_SECRET" "COOKIE_SECRET" ] (
      name:
      mkOption {
        type = types.nullOr types.externalPath;
        default = null;
        description = "The file that holds ${name}. Only root need be able to read it.";
      }
    );

    database.createLocally = lib.mkEnableOption "the database `bulkhead` in this host's PostgreSQL";
    openFirewall = lib.mkEnableOption "the firewall's opening for PORT";
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion =
          lib.count lib.id [
            (cfg.settings ? DATABASE_URL)
            (secrets ? DATABASE_URL)
            cfg.database.createLocally
          ] == 1;
        message = "services.bulkhead: set exactly one of secrets.DATABASE_URL, settings.DATABASE_URL and database.createLocally.";
      }
    ];

    # A wrong setting fails the build of the system, not the start of the service.
    system.checks = lib.optional (pkgs.stdenv.buildPlatform == pkgs.stdenv.hostPlatform) settingsCheck;
    networking.firewall.allowedTCPPorts = lib.optional cfg.openFirewall cfg.settings.PORT;

    services.postgresql = lib.mkIf cfg.database.createLocally {
      enable = true;
      ensureDatabases = [ "bulkhead" ];
      # A migration makes the role bulkhead_app: docs/tenancy.md.
      ensureUsers = [ { name = "bulkhead"; ensureDBOwnership = true; ensureClauses.createrole = true; } ];
    };

    systemd.services.bulkhead = {
      description = "Bulkhead, a multi-tenant HTTP API";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      # The target is reached when the role and the database are there.
      requires = local [ "postgresql.target" ];
      after = [ "network-online.target" ] ++ local [ "postgresql.target" ];
      # systemd replaces what follows a percent sign: `%d` is the credentials' folder, `%%` the sign itself.
      environment =
        lib.mapAttrs (_: lib.replaceStrings [ "%" ] [ "%%" ]) plain
        // lib.mapAttrs' (name: _: lib.nameValuePair "${name}_FILE" "%d/${name}") secrets;
      serviceConfig = import ./hardening.nix // {
        Type = "exec";
        ExecStart = "${lib.getExe cfg.package} start";
        LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") secrets;
        # Peer authentication: the user's name is the role's.
        DynamicUser = true;
        User = "bulkhead";
        StateDirectory = "bulkhead";
        StateDirectoryMode = "0700";
        Restart = "on-failure";
        RestartSec = 5;
        # Wrong settings, or a schema that is not for this build: a person must act.
        RestartPreventExitStatus = "2 3";
        TimeoutStopSec = cfg.settings.SHUTDOWN_DELAY_SECONDS + cfg.settings.SHUTDOWN_DRAIN_SECONDS + 10;
      };
    };
  };
}
