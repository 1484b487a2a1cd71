# The binary, and what the checks share with it: sources, arguments, dependency layers.
# On Linux it is static, for the image; elsewhere it is one for `nix run`.
{
  pkgs,
  craneLib,
  # Whatever it is, the binary is the same; with a new one no store and no cache has the derivations: scripts/verify.
  nonce ? "",
}:
let
  inherit (pkgs) lib;
  inherit (pkgs.stdenv) hostPlatform;
  manifest = builtins.fromTOML (builtins.readFile ../Cargo.toml);

  # Only what cargo reads. Whatever else changes, a page of the docs for one, rebuilds nothing.
  files =
    more:
    lib.sourceByRegex ../. (
      [
        "\\.cargo(/config\\.toml)?"
        "Cargo\\.(toml|lock)"
        "flake\\.lock"
        "build\\.rs"
        "(cli-docs|image-tools)"
        "(cli-docs|image-tools)/Cargo\\.toml"
        "(migration|migrator|src)(/.*)?"
        "tests"
        "tests/(image|migrations|support)"
        "tests/(image|migrations|support)/Cargo\\.toml"
      ]
      ++ more
    );

  cargoVendorDir = craneLib.vendorCargoDeps { cargoLock = ../Cargo.lock; };

  common = {
    inherit cargoVendorDir;
    pname = manifest.package.name;
    inherit (manifest.workspace.package) version;
    strictDeps = true;
    # The dependency layer only builds: by default it would check and test every dependency as well.
    cargoCheckCommand = "true";
    doCheck = false;
    # The path in .cargo/config.toml is one of the repository, of which the dependency layer has nothing.
    SWAGGER_UI_OVERWRITE_FOLDER = "${../deploy/swagger-ui}";
  }
  // lib.optionalAttrs (nonce != "") { inherit nonce; };

  # The workspace names packages whose sources a build does not need.
  standIns = "sh ${../deploy/build/stand-ins}";

  # The folders of a build: in a sandbox, and without one before Nix 2.30 (a hook below knows the folders of later ones).
  buildFolders = [
    "/build"
    "/tmp/nix-build-${common.pname}-deps-${common.version}.drv-0"
    "/tmp/nix-build-${common.pname}-${common.version}.drv-0"
  ];
  # Compilers name sources by folders. Names that are the same everywhere stand in for them: the same binary comes of
  # every folder, and the vendored crates are named as cargo's registry names them.
  remap =
    flag: [ "${flag}=${cargoVendorDir}=cargo" ] ++ map (folder: "${flag}=${folder}=.") buildFolders;

  # Static, so that the image needs no library. With a target given, the flags do not reach build scripts and
  # procedural macros, which are linked with shared libraries.
  static =
    let
      target = hostPlatform.rust.rustcTarget;
      # libc.a is in an output of its own. As a buildInput it would break every program that is linked dynamically:
      # the wrapper of nixpkgs' linker puts the folders of buildInputs before the one of libc.so
      # (pkgs/build-support/bintools-wrapper/add-flags.sh; NixOS/nixpkgs#59267).
      libc = "${pkgs.glibc.static}/lib";
      cFlags = "CFLAGS_${lib.replaceStrings [ "-" ] [ "_" ] target}";
    in
    {
      CARGO_BUILD_TARGET = target;
      CARGO_BUILD_RUSTFLAGS = lib.concatStringsSep " " (
        [
          "-C target-feature=+crt-static"
          "-C link-arg=-Wl,-z,pack-relative-relocs"
          # For the target alone: nixpkgs' compiler finds libc.so, but no libc.a, by itself (NixOS/nixpkgs#59267).
          "-L native=${libc}"
        ]
        ++ remap "--remap-path-prefix"
      );
      # C parts (aws-lc, SQLite): assertions name their files; and the build script of aws-lc-sys links a program
      # with -static to see what the compiler can do, which needs the same libc.a (NixOS/nixpkgs#59267).
      ${cFlags} = lib.concatStringsSep " " ([ "-L${libc}" ] ++ remap "-ffile-prefix-map");
      # Since Nix 2.30 a build without a sandbox has a folder of a new name each time (NixOS/nix, release notes 2.30).
      # It is mapped, too; cargo then compiles the dependencies anew, since the flags have changed.
      preConfigure = ''
        case $NIX_BUILD_TOP in
        ${lib.concatStringsSep " | " buildFolders}) ;;
        *)
          export CARGO_BUILD_RUSTFLAGS="$CARGO_BUILD_RUSTFLAGS --remap-path-prefix=$NIX_BUILD_TOP=."
          export ${cFlags}="''$${cFlags} -ffile-prefix-map=$NIX_BUILD_TOP=."
          ;;
        esac
      '';
    };

  release =
    common
    // {
      src = files [ ];
      cargoExtraArgs = "--locked --package bulkhead";
      # Says in the binary which crates it is made of.
      cargoBuildCommand = "cargo auditable build --release";
      nativeBuildInputs = [ pkgs.cargo-auditable ];
    }
    // lib.optionalAttrs hostPlatform.isLinux static;

  dependencies = craneLib.buildDepsOnly (
    release
    // {
      # utoipa-swagger-ui's build script embeds every file that it finds in its own folder (write_embed in its build.rs):
      # where it runs again, for flags that have changed, it embeds what it compressed before, too. So it runs in the
      # layer of the API alone, which has no such folder.
      postBuild = "find target -name 'utoipa-swagger-ui-[0-9a-f]*' -prune -exec rm -r {} +";
    }
  );
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
      postPatch = standIns;
      cargoExtraArgs = "--locked --package image-tools";
      CARGO_PROFILE = "dev";
      meta.mainProgram = "compare-images";
    }
  );

  # Completions for shells, and man pages, on the package's own dependency layer. That one is for LTO, so the program is linked
  # with it, too: in its fastest form, since it runs once.
  cliDocs = craneLib.mkCargoDerivation (
    release
    // {
      pname = "bulkhead-cli-docs";
      src = files [ "cli-docs/.*" ];
      cargoArtifacts = dependencies;
      postPatch = standIns;
      nativeBuildInputs = [ ];
      # No other flags than those of the dependency layer, whatever the folder of the build.
      preConfigure = "";
      buildPhaseCargoCommand = "cargo rustc --release --locked --package cli-docs -- -C lto=thin -C opt-level=0";
      doInstallCargoArtifacts = false;
      # The folders of nixpkgs' installShellFiles.
      installPhaseCommand = ''
        find target -path '*/release/cli-docs' -type f -exec {} written ';'
        install -D -m 0444 written/bash/bulkhead.bash $out/share/bash-completion/completions/bulkhead.bash
        install -D -m 0444 -t $out/share/fish/vendor_completions.d written/fish/*
        install -D -m 0444 -t $out/share/zsh/site-functions written/zsh/*
        install -D -m 0444 -t $out/share/man/man1 written/man1/*
      '';
    }
  );

  # Everything that the checks compile, on a dependency layer of the dev profile.
  development =
    let
      arguments = common // {
        # Not the name of the release's: the folder of a build without a sandbox has it, and both may build at once.
        pname = "${common.pname}-development";
        src = files [
          "(deny|rustfmt)\\.toml"
          "bench(/hot_paths\\.rs)?"
          "\\.railway(/railway\\.ts)?"
          "deploy"
          "deploy/(compose|ecs|kubernetes|observability|postgres|proxies)(/.*)?"
          "deploy/compose\\.yaml"
          "docs"
          "\\.github(/workflows(/.*)?)?"
          "(CHANGELOG|SECURITY)\\.md"
          "docs/.*\\.md"
          "(cli-docs|image-tools)/.*"
          "fuzz(/Cargo\\.lock|/seeds(/.*)?)?"
          "Dockerfile"
          "nix(/module\\.nix)?"
          "railway\\.json"
          "scripts(/(rolling|soak|test))?"
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
      cargoArtifacts = dependencies;
      postPatch = standIns;
      meta = {
        inherit (manifest.package) description;
        mainProgram = manifest.package.name;
        platforms = lib.platforms.unix;
      };
    }
    // lib.optionalAttrs hostPlatform.isLinux {
      # A static glibc holds store paths (its own, libidn2's, libgcc's) to look for what the image does without.
      # Names of the same length that lead nowhere stand in for them.
      postFixup = ''
        find $out/bin -type f -exec \
          sed -i -E 's|/nix/store/[0-9a-z]{32}-|/nix/store/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee-|g' {} +
      '';
      allowedReferences = [ ];
    }
  );
}
