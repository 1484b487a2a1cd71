# What `nix fmt` runs. Nix gives it no path, and nixfmt would then wait for its standard input (NixOS/nixfmt#305).
{ pkgs }:
pkgs.writeShellApplication {
  name = "format";
  runtimeInputs = [
    pkgs.git
    pkgs.nixfmt
  ];
  text = ''
    # nix fmt                 formats every file of Nix in the repository
    # nix fmt -- --check      says which are not formatted
    # nix fmt -- [OPTION...] PATH...
    options=()
    while [[ ''${1:-} == -* ]]; do
      options+=("$1")
      shift
    done
    if (($# == 0)); then
      cd "$(git rev-parse --show-toplevel)"
      # What git ignores, such as builds, is left alone.
      mapfile -t -d "" files < <(git ls-files -z --cached --others --exclude-standard -- '*.nix')
      set -- "''${files[@]}"
    fi
    nixfmt "''${options[@]}" "$@"
  '';
}
