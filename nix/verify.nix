# scripts/verify with all the programs that it needs, save for an engine and Nix itself.
{ pkgs, bulkhead }:
let
  programs = with pkgs; [
    coreutils
    git
    gnugrep
    gnused
    jq
  ];
in
pkgs.writeScript "verify" ''
  #!${pkgs.runtimeShell}
  PATH=${pkgs.lib.makeBinPath programs}:$PATH
  export COMPARE_IMAGES=${bulkhead.imageTools}/bin/compare-images
  exec ${pkgs.runtimeShell} ${../scripts}/verify "$@"
''
