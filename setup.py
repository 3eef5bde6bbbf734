"""The optional C extension, and the recipe as data of the package; the rest is in setup.cfg."""

import os
import shutil
import sysconfig
import tempfile

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

NATIVE = "espnet_mlma/scan/native"
# What `mlma recipe new` lays out (espnet_mlma/cli/new.py).
RECIPE = ("egs2/mlma/asr1", "conf", "local")
# Links, results of a checkout, and the ablation grid, which needs benchmarks/.
NOT_RECIPE = shutil.ignore_patterns(
    *("conf", "local", "data", "db", "dump", "exp", "ablation", "__pycache__")
)


class BuildPython(build_py):
    """Copies the recipe into the package; an editable install reads it from the checkout."""

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for part in RECIPE:
            place = os.path.join(self.build_lib, "espnet_mlma", "recipe", part)
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(part, place, ignore=NOT_RECIPE)


class BuildNative(build_ext):
    """Adds OpenMP where the compiler has it; without it the kernels run on one thread."""

    def build_extensions(self):
        if self._compiles("-fopenmp"):
            for extension in self.extensions:
                extension.extra_compile_args.append("-fopenmp")
                extension.extra_link_args.append("-fopenmp")
        super().build_extensions()

    def _compiles(self, flag: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "probe.c")
            with open(source, "w") as file:
                file.write("int probe(void) { return 0; }\n")
            try:
                objects = self.compiler.compile([source], folder, extra_postargs=[flag])
                self.compiler.link_shared_object(
                    objects, os.path.join(folder, "probe.so"), extra_postargs=[flag]
                )
            except Exception:  # each compiler class has its own error types
                return False
        return True


setup(
    cmdclass={"build_ext": BuildNative, "build_py": BuildPython},
    ext_modules=[
        Extension(
            "espnet_mlma.scan._native",
            sources=[f"{NATIVE}/scan.c", f"{NATIVE}/conv.c"],
            depends=[f"{NATIVE}/simd.h"],
            # The library uses nothing of Python: one wheel serves every version.
            py_limited_api=True,
            # 512-bit vectors are twice as fast here where the machine has them; the clones for
            # smaller machines are not touched by the flag.
            extra_compile_args=["-std=gnu11", "-O3", "-mprefer-vector-width=512", "-Wno-psabi"]
            if sysconfig.get_platform().endswith("x86_64")
            else ["-std=gnu11", "-O3", "-Wno-psabi"],
            optional=True,
        )
    ],
)
