"""Model libraries of other packages.

A package that brings one names it by an entry point of the group ``ttt.models``, which is either the path of the library
or a function that returns it::

    [project.entry-points."ttt.models"]
    mine = "my_package:library_path"
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from importlib.metadata import entry_points

from ._error import Error

PathLike = str | os.PathLike[str]


@functools.cache
def _found() -> tuple[str, ...]:
    paths = []
    for entry in entry_points(group="ttt.models"):
        try:
            value = entry.load()
            paths.append(os.fspath(value() if callable(value) else value))
        except Exception as error:
            raise Error(f"the model library of entry point '{entry.name}' can not be found: {error}", entry.value,
                        "reinstall or remove the package that names it") from error
    return tuple(paths)


def model_libraries() -> list[str]:
    """Paths of the model libraries that installed packages name by entry points."""
    return list(_found())


def all_libraries(given: Sequence[PathLike]) -> list[str]:
    """The given ones, then those of installed packages."""
    return [os.fspath(path) for path in given] + model_libraries()
