"""Which tests a question is about, and running them: what ``ttt tests`` does (docs/testing.md)."""

from __future__ import annotations

from collections.abc import Sequence

from ._core import Selection, select_tests
from ._libraries import PathLike, all_libraries

__all__ = ["Selection", "select"]


def select(*, model: PathLike = "", family: str = "", skus: Sequence[str] = (), precision: str = "performance",
           module: str = "", changed: str = "", files: Sequence[str] = (), added: PathLike = "", build: PathLike = "",
           model_libraries: Sequence[PathLike] = ()) -> Selection:
    """Module instances and tests by model, family, platforms, module, change (a git range) or new checkpoint; conditions
    are joined by "and". ``Selection.run()`` runs the instances."""
    return select_tests(model=model, family=family, skus=list(skus), precision=precision, module=module, changed=changed,
                        files=list(files), added=added, build=build, model_libraries=all_libraries(model_libraries))
