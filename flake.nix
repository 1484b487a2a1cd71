{
  description = "Bulkhead: a multi-tenant HTTP API for health data, and the reproducible image it is deployed from";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    crane.url = "github:ipetkov/crane/v0.23.4";
  };

  outputs =
    {
      self,
      nixpkgs,
      crane,
    }:
    let
      linux = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # nixpkgs 26.05 is the last release for Macs with an Intel processor.
      darwin = [
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      inherit (nixpkgs) lib;
      parts =
        nonce: system:
        let
          pkgs = import nixpkgs { inherit system; };
        in
        {
          inherit pkgs system;
          bulkhead = import ./nix/package.nix {
            inherit pkgs nonce;
            craneLib = crane.mkLib pkgs;
          };
        };
      forSystems = systems: part: lib.genAttrs systems (system: part (parts "" system));

      # Containers run Linux, on a Mac, too: on the same processor.
      linuxOf = lib.replaceStrings [ "darwin" ] [ "linux" ];
      images =
        { pkgs, bulkhead, ... }:
        {
          inherit (bulkhead) sbom;
          archive = import ./nix/archive.nix {
            inherit pkgs;
            inherit (bulkhead) package cliDocs;
          };
          image = import ./nix/image.nix {
            inherit pkgs;
            inherit (bulkhead) package;
            revision = self.rev or self.dirtyRev or "unknown";
            created = self.lastModifiedDate;
          };
        };
      imagesOf = forSystems linux images;
      index =
        pkgs: systems:
        import ./nix/index.nix {
          inherit pkgs;
          images = map (system: imagesOf.${system}.image) systems;
        };
    in
    {
      # nix build .#default: the binary, with completions for shells and man pages
      # nix build .#image: an archive for `docker load`
      # nix build .#index: the images of both architectures as one OCI layout; .#index-amd64, .#index-arm64: of one
      # nix build .#archive: the static binary for Linux with completions and man pages, as a release has it
      # nix build .#sbom: what the binary is made of, in CycloneDX
      packages = forSystems (linux ++ darwin) (
        {
          pkgs,
          system,
          bulkhead,
        }:
        imagesOf.${linuxOf system}
        // {
          default =
            pkgs.symlinkJoin {
              inherit (bulkhead.package) name meta;
              paths = [
                bulkhead.package
                bulkhead.cliDocs
              ];
            }
            # The dependency layer, for scripts/rebuilds.
            // {
              inherit (bulkhead.package) cargoArtifacts;
            };
          index = index pkgs linux;
          index-amd64 = index pkgs [ "x86_64-linux" ];
          index-arm64 = index pkgs [ "aarch64-linux" ];
        }
      );

      # The image once more, for scripts/verify: by derivations that no store and no cache has.
      lib.rebuild = system: nonce: (images (parts nonce (linuxOf system))).image;

      # nix flake check
      checks = forSystems linux (
        { pkgs, bulkhead, ... }: import ./nix/checks.nix { inherit pkgs bulkhead; }
      );

      # services.bulkhead on NixOS: docs/nixos.md
      nixosModules.default = import ./nix/module.nix self.packages;

      # nix run: starts the API    nix run .#verify -- IMAGE: whether an image is what its revision builds
      apps = forSystems (linux ++ darwin) (
        { pkgs, bulkhead, ... }:
        let
          app = program: {
            type = "app";
            inherit program;
          };
          # At a terminal too, where the program alone prints its help.
          start = pkgs.writeScript "bulkhead" ''
            #!${pkgs.runtimeShell}
            exec ${bulkhead.package}/bin/bulkhead "''${@:-start}"
          '';
        in
        {
          default = app "${start}";
          verify = app "${import ./nix/verify.nix { inherit pkgs bulkhead; }}";
        }
      );

      # nix develop
      devShells = forSystems (linux ++ darwin) (
        { pkgs, ... }: { default = import ./nix/devshell.nix { inherit pkgs; }; }
      );

      # nix fmt
      formatter = forSystems (linux ++ darwin) (
        { pkgs, ... }: import ./nix/formatter.nix { inherit pkgs; }
      );
    };
}
