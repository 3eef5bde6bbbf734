#!/usr/bin/env python3
"""Install a wheel into a new environment and use it without a compiler.

tools/check_wheel.py dist/*.whl                        # installs the dependencies too: 6 GB
tools/check_wheel.py --dependencies .venv dist/*.whl   # uses those of another environment
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

# Runs in the new environment.
CHECKS = """
import os, shutil, sys
from pathlib import Path

import torch

import espnet_mlma
from espnet_mlma import scan

package = Path(espnet_mlma.__file__).parent
assert package.is_relative_to(sys.prefix), f"{package} is not the wheel's"
assert not any(map(shutil.which, ("cc", "gcc", "clang"))), "there is a compiler"
assert "cpu" in scan.available_backends(), scan.available_backends()

encoder = espnet_mlma.ConMambaEncoder(80, output_size=32, num_blocks=2, linear_units=64).eval()
features, lengths = torch.randn(2, 200, 80), torch.tensor([200, 150])
frames = []
for backend in ("cpu", "reference"):
    os.environ["ESPNET_MLMA_SCAN"] = backend
    with torch.no_grad():
        frames.append(encoder(features, lengths)[0])
torch.testing.assert_close(*frames, rtol=1e-4, atol=1e-4)

with open("/proc/self/maps") as file:
    loaded = {line.split(maxsplit=5)[-1].strip() for line in file if ".so" in line}
(library,) = (Path(name) for name in loaded if "/_native" in name)
assert library.is_relative_to(package), f"{library} is not the wheel's"
openmp = [name for name in loaded if name.endswith("/libgomp.so.1")]
assert len(openmp) == 1 and "/torch/" in openmp[0], f"OpenMP runtimes: {openmp}"
print("C library:", library)
"""


def main() -> None:
    """Check each wheel; a check that fails ends with its traceback."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", nargs="+", type=Path, metavar="WHEEL")
    parser.add_argument(
        "--dependencies",
        type=Path,
        metavar="ENVIRONMENT",
        help="use the packages of this environment (default: install them)",
    )
    args = parser.parse_args()
    for wheel in args.wheels:
        with tempfile.TemporaryDirectory() as folder:
            check(wheel.resolve(), Path(folder), args.dependencies)
        print(f"{wheel}: ok")


def check(wheel: Path, folder: Path, dependencies: Path | None) -> None:
    """Install a wheel and use it: the scan, the command, the recipe.

    Args:
        wheel: to install.
        folder: empty; gets the environment.
        dependencies: an environment with the dependencies; None: install them.

    Raises:
        subprocess.CalledProcessError: a check failed.
    """
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", str(wheel)]
    if dependencies is not None:
        # A line of a .pth file adds this folder without the .pth files in it: no editable install.
        (found,) = dependencies.resolve().glob("lib/python*/site-packages")
        (own,) = environment.glob("lib/python*/site-packages")
        (own / "dependencies.pth").write_text(f"{found}\n")
        command.append("--no-deps")
    subprocess.run(command, check=True)
    variables = {"PATH": str(environment / "bin"), "HOME": str(folder)}
    mlma = str(environment / "bin" / "mlma")
    recipe = folder / "recipe"
    for command, place in (
        ([python, "-c", CHECKS], folder),
        ([mlma, "--version"], folder),
        ([mlma, "recipe", "new", str(recipe)], folder),
        ([mlma, "recipe", "prepare", "--mixture", "mini", "--list", "test"], recipe),
    ):
        subprocess.run(command, check=True, cwd=place, env=variables)
    missing = [name for name in ("conf", "local") if not (recipe / name).is_dir()]
    missing += [name for name in ("run.sh", "asr.sh") if not os.access(recipe / name, os.X_OK)]
    if missing:
        sys.exit(f"error: {wheel.name}: `mlma recipe new` leaves out {', '.join(missing)}")


if __name__ == "__main__":
    main()
