"""What setup.cfg cannot say: the sweeps of the top-level folder go into the package when it is built.

They are kept once, in `sweeps/`, which the documentation names. `fashion/spec/shipped.py` finds them in both places.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SOURCE, TARGET = "sweeps", "fashion/spec/sweeps"


class BuildWithSweeps(build_py):
    """Copies the sweeps beside the module that reads them. An editable install reads those of the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, target in self._shipped().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else list(self._shipped().values()))

    def _shipped(self) -> dict[str, str]:
        """Source -> target below the build folder."""
        return {str(path): f"{self.build_lib}/{TARGET}/{path.name}" for path in sorted(Path(SOURCE).glob("*.yaml"))}


setup(cmdclass={"build_py": BuildWithSweeps})
