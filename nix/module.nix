# `services.bulkhead`: the API as a systemd service and, where wanted, its database on the same host: docs/nixos.md.
packages:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) types;
  cfg = config.services.bulkhead;
  option =
    type: default: description:
    lib.mkOption { inherit type default description; };

  local = cfg.database.createLocally;
  # The socket's name holds the port.
  port = toString config.services.postgresql.settings.port;
  socket.DATABASE_URL = "postgres:///bulkhead?host=/run/postgresql&port=${port}&user=bulkhead";

  text = value: if lib.isBool value then lib.boolToString value else toString value;
  settings = lib.mapAttrs (_: text) cfg.settings // lib.optionalAttrs local socket;
  secrets = lib.filterAttrs (_: path: path != null) cfg.secrets;

  # Secrets are not known when a system is built. This stands in for any: a URL, and as long as COOKIE_SECRET must be; or
  # 32 bytes in base64; or what looks like a certificate, or a header.
  dummies = lib.mapAttrs (
    name: _:
    if name == "AUDIT_CHECKPOINT_WEBHOOK" then
      "https://localhost/"
    else if lib.hasPrefix "AUDIT_" name then
      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
    else if name == "DATABASE_CA" then
      "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    else if name == "OTEL_EXPORTER_OTLP_HEADERS" then
      "name=value"
    else
      "postgres://localhost/thirty-two-bytes-or-more"
  ) secrets;
  arguments = lib.mapAttrsToList (name: value: "${name}=${value}") (settings // dummies);
  settingsCheck = pkgs.runCommand "bulkhead-settings" { } ''
    env -i ${lib.escapeShellArgs arguments} ${lib.getExe cfg.package} config check >$out
  '';
in
{
  options.services.bulkhead = {
    enable = lib.mkEnableOption "Bulkhead, a multi-tenant HTTP API for health data";
    package = lib.mkOption {
      type = types.package;
      default = packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalMD "the package of Bulkhead's flake";
      description = "The package that holds `bin/bulkhead`.";
    };
    settings = lib.mkOption {
      default = { };
      example.OIDC_ISSUER_URL = "https://login.example.org";
      description = "The variables of docs/settings.md. Everyone on the host can read them.";
      type = types.submodule {
        freeformType = types.attrsOf (types.either types.str (types.either types.int types.bool));
        options = {
          ENVIRONMENT = option types.str "production" "`development`, `staging` or `production`.";
          PORT = option (types.ints.between 1024 65535) 8000 "The TCP port to listen on.";
          # No balancer has to notice: nothing else serves meanwhile.
          SHUTDOWN_DELAY_SECONDS = option types.ints.u32 0 "How long a stop goes on accepting requests.";
          SHUTDOWN_DRAIN_SECONDS = option types.ints.u32 30 "How long requests may take to end after that.";
        };
      };
    };
    secrets = lib.genAttrs [
      "DATABASE_URL"
      "MIGRATION_DATABASE_URL"
      "DATABASE_CA"
      "OIDC_CLIENT_SECRET"
      "COOKIE_SECRET"
      "AUDIT_SIGNING_KEY"
      "AUDIT_SUBJECT_KEY"
      "AUDIT_CHECKPOINT_WEBHOOK"
      "OTEL_EXPORTER_OTLP_HEADERS"
    ] (name: option (types.nullOr types.externalPath) null "The file that holds ${name}.");
    database.createLocally = lib.mkEnableOption "the database `bulkhead` in PostgreSQL on this host";
    openFirewall = lib.mkEnableOption "connections to PORT from other hosts";
  };

  config = lib.mkIf cfg.enable {
    assertions = lib.singleton {
      assertion =
        lib.count lib.id [
          local
          (cfg.settings ? DATABASE_URL)
          (secrets ? DATABASE_URL)
        ] == 1;
      message = "services.bulkhead: set one of secrets.DATABASE_URL, settings.DATABASE_URL, database.createLocally.";
    };

    # A wrong setting fails the build of the system, not the start of the service.
    system.checks = lib.optional (pkgs.stdenv.buildPlatform == pkgs.stdenv.hostPlatform) settingsCheck;
    networking.firewall.allowedTCPPorts = lib.optional cfg.openFirewall cfg.settings.PORT;

    services.postgresql = lib.mkIf local {
      enable = true;
      ensureDatabases = [ "bulkhead" ];
      ensureUsers = lib.singleton {
        name = "bulkhead";
        ensureDBOwnership = true;
        # A migration makes the role bulkhead_app.
        ensureClauses.createrole = true;
      };
    };

    systemd.services.bulkhead = {
      description = "Bulkhead, a multi-tenant HTTP API";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      # The target stands for a server with its roles and databases (nixpkgs, services/databases/postgresql.nix).
      requires = lib.optional local "postgresql.target";
      after = [ "network-online.target" ] ++ lib.optional local "postgresql.target";
      # `%d` is the credentials' folder, `%%` a percent sign (systemd.unit(5), specifiers).
      environment =
        lib.mapAttrs (_: lib.replaceStrings [ "%" ] [ "%%" ]) settings
        // lib.mapAttrs' (name: _: lib.nameValuePair "${name}_FILE" "%d/${name}") secrets;
      serviceConfig = import ./hardening.nix // {
        Type = "exec";
        ExecStart = "${lib.getExe cfg.package} start";
        LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") secrets;
        # PostgreSQL tells a role by the name of the user (peer authentication).
        User = "bulkhead";
        DynamicUser = true;
        StateDirectory = "bulkhead";
        StateDirectoryMode = "0700";
        Restart = "on-failure";
        RestartSec = 5;
        # Wrong settings, and a schema that this build cannot serve with, stay as they are until someone acts.
        RestartPreventExitStatus = "2 3";
        TimeoutStopSec = cfg.settings.SHUTDOWN_DELAY_SECONDS + cfg.settings.SHUTDOWN_DRAIN_SECONDS + 10;
      };
    };
  };
}
