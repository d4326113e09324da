"""The cells of a MATLAB 5 file, one in memory at a time.

`scipy.io.loadmat` makes a cell array whole. Its reader underneath makes one element after the
other; here it is told to hand each of them over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dpmedbench.errors import UserError, one_line

NUMBERS = 1 << 28  # in the largest array that is read; a volume has 25 million


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The variables of the file with their shapes.

    UserError where it cannot be read, and for an array of more than `NUMBERS`.
    """
    import scipy.io

    try:
        found = {name: shape for name, shape, _ in scipy.io.whosmat(path, appendmat=False)}
    except Exception as error:  # scipy raises whatever the broken bytes lead it to
        raise _broken(path, error) from error
    for name, shape in found.items():
        _check_size(path, name, shape)
    return found


def cells(path: Path, name: str) -> Iterator[np.ndarray]:
    """Yield the elements of the cell array `name`, column after column.

    UserError where the variable is missing or no cell array, the file ends too early, or an
    element has more than `NUMBERS`.
    """
    from scipy.io.matlab._mio5 import MatFile5Reader
    from scipy.io.matlab._mio5_params import mxCELL_CLASS

    with open(path, "rb") as handle:
        reader, header = MatFile5Reader(handle), None
        matrix = None
        try:
            reader.initialize_read()
            reader.read_file_header()
            while not reader.end_of_stream():
                header, after = reader.read_var_header()
                if header.name.decode("latin1") == name:
                    matrix = reader._matrix_reader
                    break
                handle.seek(after)
        except Exception as error:
            raise _broken(path, error) from error
        if matrix is None or header.mclass != mxCELL_CLASS:
            raise UserError(
                f"{path}: found {name} missing or no cell array, expected one; use the official "
                "file."
            )
        for _ in range(math.prod(map(int, header.dims))):
            try:
                matrix.read_full_tag()
                header = matrix.read_header(False)
                _check_size(path, name, header.dims)
                cell = matrix.array_from_header(header)
            except UserError:
                raise
            except Exception as error:
                raise _broken(path, error) from error
            yield cell


def _check_size(path: Path, name: str, shape: tuple[int, ...]) -> None:
    if math.prod(map(int, shape)) > NUMBERS:
        raise UserError(
            f"{path}: found {name} of shape {tuple(map(int, shape))}, expected at most {NUMBERS} "
            "numbers; do not trust this file."
        )


def _broken(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: found a file that cannot be read to its end ({one_line(error)}), expected "
        "a MATLAB 5 file; get it again."
    )
