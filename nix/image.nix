# The image: a static binary, CA certificates, two lines of passwd. Same contract as the Dockerfile's.
{
  pkgs,
  package,
  revision,
  # yyyymmddHHMMSS, the commit's time, as flakes give it
  created,
}:
let
  part = builtins.substring;
  timestamp = "${part 0 4 created}-${part 4 2 created}-${part 6 2 created}T${part 8 2 created}:${part 10 2 created}:${part 12 2 created}Z";
in
pkgs.dockerTools.buildLayeredImage {
  name = "bulkhead";
  tag = package.version;
  created = timestamp;
  # Copied, not linked into the store: the image holds these files and nothing else.
  extraCommands = ''
    install -D -m 0555 ${package}/bin/bulkhead bin/bulkhead
    install -D -m 0444 ${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt etc/ssl/certs/ca-certificates.crt
    install -m 0444 ${../deploy/rootfs/etc/passwd} etc/passwd
    install -m 0444 ${../deploy/rootfs/etc/group} etc/group
  '';
  config = {
    Entrypoint = [ "/bin/bulkhead" ];
    Cmd = [ "start" ];
    User = "65532:65532";
    WorkingDir = "/";
    Env = [
      "ENVIRONMENT=production"
      "SOURCE_REVISION=${revision}"
    ];
    ExposedPorts."8000/tcp" = { };
    StopSignal = "SIGTERM";
    # Times in nanoseconds.
    Healthcheck = {
      Test = [
        "CMD"
        "/bin/bulkhead"
        "healthcheck"
      ];
      Interval = 30 * 1000000000;
      Timeout = 5 * 1000000000;
      StartPeriod = 60 * 1000000000;
      Retries = 3;
    };
    Labels = {
      "org.opencontainers.image.title" = "bulkhead";
      "org.opencontainers.image.description" = "A multi-tenant HTTP API for health data";
      "org.opencontainers.image.source" = "https://github.com/bulkhead-rs/bulkhead";
      "org.opencontainers.image.licenses" = "Apache-2.0 OR MIT";
      "org.opencontainers.image.version" = package.version;
      "org.opencontainers.image.revision" = revision;
      "org.opencontainers.image.created" = timestamp;
      "io.github.bulkhead-rs.cargo-lock-sha256" = builtins.hashFile "sha256" ../Cargo.lock;
      "io.github.bulkhead-rs.flake-lock-sha256" = builtins.hashFile "sha256" ../flake.lock;
    };
  };
}
