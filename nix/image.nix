# The image: a static binary, CA certificates, two lines of passwd. Same contract as the Dockerfile's.
#
# Made by tar and jq, not by nixpkgs' dockerTools: there the history of an image names store paths
# (pkgs/build-support/docker/stream_layered_image.py), which say nothing to anybody who has only the image.
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
  config = {
    architecture = pkgs.stdenv.hostPlatform.go.GOARCH;
    os = "linux";
    created = timestamp;
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
        "io.github.bulkhead-rs.builder" = "nix";
        "io.github.bulkhead-rs.cargo-lock-sha256" = builtins.hashFile "sha256" ../Cargo.lock;
        "io.github.bulkhead-rs.flake-lock-sha256" = builtins.hashFile "sha256" ../flake.lock;
      };
    };
    history = [
      {
        created = timestamp;
        created_by = "nix build .#image";
      }
    ];
  };
in
pkgs.runCommand "bulkhead-${package.version}.tar.gz"
  {
    nativeBuildInputs = [ pkgs.jq ];
    configuration = builtins.toJSON config;
    passAsFile = [ "configuration" ];
  }
  ''
    install -D -m 0555 ${package}/bin/bulkhead root/bin/bulkhead
    install -D -m 0444 ${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt root/etc/ssl/certs/ca-certificates.crt
    install -m 0444 ${../deploy/rootfs/etc/passwd} root/etc/passwd
    install -m 0444 ${../deploy/rootfs/etc/group} root/etc/group
    find root -type d -exec chmod 0755 {} +

    # The same files are the same layer, whatever their commit.
    archive() { tar --format=ustar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -c "$@"; }
    digest() { sha256sum "$1" | cut -d ' ' -f 1; }

    # As `docker save` writes it.
    mkdir image
    archive -C root -f layer.tar .
    layer=$(digest layer.tar)
    mkdir image/$layer
    mv layer.tar image/$layer/layer.tar
    jq --compact-output --sort-keys --arg layer "sha256:$layer" \
      '.rootfs = {type: "layers", diff_ids: [$layer]}' "$configurationPath" >config.json
    config=$(digest config.json)
    mv config.json image/$config.json
    jq --null-input --compact-output --arg config "$config.json" --arg layer "$layer/layer.tar" \
      '[{Config: $config, RepoTags: ["bulkhead:${package.version}"], Layers: [$layer]}]' >image/manifest.json
    cd image
    archive * | gzip -9 --no-name >$out
  ''
