"""The frame of every script: its log, and one sentence for a user's mistake."""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections.abc import Iterator

from dpmedbench.console import logged, say
from dpmedbench.errors import UserError


@contextlib.contextmanager
def running(snakemake) -> Iterator[None]:
    """Run a script's body: lines and warnings go to its log, as does the trace of a failure.

    A UserError ends the job with its sentence alone, anything else with a stack trace.
    """
    with logged(snakemake.log[0]) as log:
        warnings.showwarning = lambda message, kind, file, line, *_: print(
            f"{file}:{line}: {kind.__name__}: {message}", file=log
        )
        try:
            yield
        except UserError as error:
            say(f"error in {snakemake.rule}: {error}")
            sys.exit(1)
        except Exception:
            traceback.print_exc(file=log)
            raise
