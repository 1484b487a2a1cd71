# An OCI image layout of images of several architectures, for scripts/publish.
{ pkgs, images }:
pkgs.runCommand "bulkhead-index" { nativeBuildInputs = [ pkgs.jq ]; } ''
  bash ${../scripts/index} $out ${toString images}
''
