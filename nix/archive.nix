# The archive of a release: the static binary, completions for shells, man pages and the licences, for a machine without a
# container engine and without Nix.
{
  pkgs,
  package,
  cliDocs,
}:
let
  documents = pkgs.lib.sourceByRegex ../. [
    "LICENSE-.*"
    "CHANGELOG\\.md"
  ];
  name = "bulkhead-${package.version}-${pkgs.stdenv.hostPlatform.system}";
in
pkgs.runCommand "${name}.tar.gz" { } ''
  install -D -m 0555 -t ${name}/bin ${package}/bin/bulkhead
  cp -r --no-preserve=mode ${cliDocs}/share ${name}/share
  install -D -m 0444 -t ${name}/share/doc/bulkhead ${documents}/*
  find ${name}/share -type f -exec chmod 0444 {} +
  find ${name} -type d -exec chmod 0755 {} +
  tar --format=ustar --sort=name --mtime=@1 --owner=0 --group=0 --numeric-owner -c ${name} | gzip -9 --no-name >$out
''
