"""The ``ttt`` program of the wheel, with the model libraries that other packages bring."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ._error import Error
from ._libraries import model_libraries


def main() -> None:
    program = Path(__file__).resolve().parent / "bin" / "ttt"
    try:
        libraries = model_libraries()
    except Error as error:
        sys.exit(f"error: {error}")
    if libraries:
        given = os.environ.get("TTT_MODELS")
        os.environ["TTT_MODELS"] = ":".join(([given] if given else []) + libraries)
    try:
        os.execv(program, ["ttt", *sys.argv[1:]])
    except OSError as error:
        sys.exit(f"error: the program can not be started: {error.strerror}, {program}, reinstall tttv2")


if __name__ == "__main__":
    main()
