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
      images = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      developers = images ++ [
        "x86_64-darwin"
        "aarch64-darwin"
      ];
      forSystems =
        systems: part:
        nixpkgs.lib.genAttrs systems (
          system:
          let
            pkgs = import nixpkgs { inherit system; };
          in
          part {
            inherit pkgs;
            bulkhead = import ./nix/package.nix {
              inherit pkgs;
              craneLib = crane.mkLib pkgs;
            };
          }
        );
    in
    {
      # nix build .#default: the static binary
      # nix build .#image: an archive for `docker load`
      # nix build .#sbom: what the binary is made of, in CycloneDX
      packages = forSystems images (
        { pkgs, bulkhead }:
        {
          default = bulkhead.package;
          inherit (bulkhead) sbom;
          image = import ./nix/image.nix {
            inherit pkgs;
            inherit (bulkhead) package;
            revision = self.rev or self.dirtyRev or "unknown";
            created = self.lastModifiedDate;
          };
        }
      );

      # nix flake check
      checks = forSystems images (
        { pkgs, bulkhead }: import ./nix/checks.nix { inherit pkgs bulkhead; }
      );

      # nix run: the API    nix run .#verify -- IMAGE: whether an image is what its revision builds
      apps = forSystems images (
        { pkgs, bulkhead }:
        let
          app = program: {
            type = "app";
            inherit program;
          };
        in
        {
          default = app "${bulkhead.package}/bin/bulkhead";
          verify = app "${import ./nix/verify.nix { inherit pkgs bulkhead; }}";
        }
      );

      # nix develop
      devShells = forSystems developers (
        { pkgs, ... }: { default = import ./nix/devshell.nix { inherit pkgs; }; }
      );

      # nix fmt
      formatter = forSystems developers ({ pkgs, ... }: pkgs.nixfmt);
    };
}
