# The static binary, and what the checks share with it: sources, arguments, dependency layers.
{ pkgs, craneLib }:
let
  inherit (pkgs) lib;
  manifest = builtins.fromTOML (builtins.readFile ../Cargo.toml);

  # Only what cargo reads. Whatever else changes, a page of the docs for one, rebuilds nothing.
  files =
    more:
    lib.sourceByRegex ../. (
      [
        "Cargo\\.(toml|lock)"
        "flake\\.lock"
        "build\\.rs"
        "image-tools"
        "image-tools/Cargo\\.toml"
        "(migration|src)(/.*)?"
        "tests"
        "tests/(image|migrations|support)"
        "tests/(image|migrations|support)/Cargo\\.toml"
      ]
      ++ more
    );

  common = {
    pname = manifest.package.name;
    inherit (manifest.workspace.package) version;
    strictDeps = true;
    # The dependency layer only builds: by default it would check and test every dependency as well.
    cargoCheckCommand = "true";
    doCheck = false;
  };

  # The workspace names the tests' packages, whose sources a release does not need.
  testStandIns = ''
    mkdir -p bench tests/http tests/support/src
    touch tests/support/src/lib.rs tests/image/lib.rs
    echo 'fn main() {}' | tee bench/hot_paths.rs tests/http/main.rs tests/image/main.rs \
      tests/migrations/{main,bench}.rs >tests/migrations/fixture.rs
  '';
  standIns = testStandIns + ''
    mkdir -p image-tools/src image-tools/tests/compare
    touch image-tools/src/lib.rs
    echo 'fn main() {}' | tee image-tools/tests/compare/main.rs >image-tools/src/main.rs
  '';

  release = common // {
    src = files [ ];
    cargoExtraArgs = "--locked --package bulkhead";
    # Says in the binary which crates it is made of.
    cargoBuildCommand = "cargo auditable build --release";
    nativeBuildInputs = [ pkgs.cargo-auditable ];
    # Static, so that the image needs no library. With a target given, the flags do not reach build scripts.
    CARGO_BUILD_TARGET = pkgs.stdenv.hostPlatform.rust.rustcTarget;
    CARGO_BUILD_RUSTFLAGS = lib.concatStringsSep " " (
      [
        "-C target-feature=+crt-static"
        "-C link-arg=-Wl,-z,pack-relative-relocs"
      ]
      # Generated sources are named by where they were built: in a sandbox, and without one.
      ++ map (folder: "--remap-path-prefix=${folder}=.") [
        "/build"
        "/tmp/nix-build-${common.pname}-deps-${common.version}.drv-0"
        "/tmp/nix-build-${common.pname}-${common.version}.drv-0"
      ]
    );
    buildInputs = [ pkgs.glibc.static ];
    # deploy/swagger-ui.md says what for.
    SWAGGER_UI_OVERWRITE_FOLDER = "${../deploy/swagger-ui}";
  };
in
{
  inherit craneLib;

  # What the binary is made of, for whoever must know of a crate's weakness: CycloneDX.
  sbom = craneLib.mkCargoDerivation (
    release
    // {
      pname = "bulkhead-sbom";
      cargoArtifacts = null;
      nativeBuildInputs = [
        pkgs.cargo-cyclonedx
        pkgs.jq
      ];
      postPatch = standIns;
      buildPhaseCargoCommand = "bash ${../scripts/sbom} $out";
      doInstallCargoArtifacts = false;
      installPhaseCommand = "";
    }
  );

  # What scripts/verify compares images with; for whoever verifies, so of any system, and built quickly.
  imageTools = craneLib.buildPackage (
    common
    // {
      pname = "image-tools";
      src = files [ "image-tools/.*" ];
      postPatch = testStandIns;
      cargoExtraArgs = "--locked --package image-tools";
      CARGO_PROFILE = "dev";
      meta.mainProgram = "compare-images";
    }
  );

  # Everything that the checks compile, on a dependency layer of the dev profile.
  development =
    let
      arguments = common // {
        src = files [
          "(deny|rustfmt)\\.toml"
          "bench(/hot_paths\\.rs)?"
          "docs"
          "docs/(auth|errors|image|settings)\\.md"
          "image-tools/.*"
          "railway\\.json"
          "tests/.*"
        ];
        cargoExtraArgs = "--locked --workspace --all-targets";
        CARGO_PROFILE = "dev";
      };
    in
    arguments // { cargoArtifacts = craneLib.buildDepsOnly arguments; };

  package = craneLib.buildPackage (
    release
    // {
      cargoArtifacts = craneLib.buildDepsOnly release;
      postPatch = standIns;
      # A static glibc holds store paths (its own, libidn2's, libgcc's) to look for what the image does without.
      # Names of the same length that lead nowhere stand in for them.
      postFixup = ''
        find $out/bin -type f -exec \
          sed -i -E 's|/nix/store/[0-9a-z]{32}-|/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-|g' {} +
      '';
      allowedReferences = [ ];
      meta = {
        inherit (manifest.package) description;
        mainProgram = manifest.package.name;
        platforms = lib.platforms.linux;
      };
    }
  );
}
