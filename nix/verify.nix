# scripts/verify with Nix as the builder, and all the programs that it needs.
{ pkgs }:
let
  programs = with pkgs; [
    coreutils
    diffutils
    findutils
    git
    gnugrep
    gnused
    gnutar
    gzip
    jq
  ];
in
pkgs.writeScript "verify" ''
  #!${pkgs.runtimeShell}
  PATH=${pkgs.lib.makeBinPath programs}:$PATH
  BUILDER=nix exec ${pkgs.runtimeShell} ${../scripts}/verify "$@"
''
