"""The frame of every script: its log, and one sentence for a user's mistake."""

from __future__ import annotations

import contextlib
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

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
            _check_origin(snakemake.scriptdir)
            yield
        except UserError as error:
            say(f"error in {snakemake.rule}: {error}")
            sys.exit(1)
        except Exception:
            traceback.print_exc(file=log)
            raise


def _check_origin(scripts: str) -> None:
    """Refuse a dpmedbench installed elsewhere, which Python would find before the one here.

    The code that Snakemake follows for re-runs, and that the manifest names, is the one here.
    """
    here, found = Path(scripts).resolve() / "dpmedbench", Path(__file__).resolve().parent
    if here != found:
        raise UserError(
            f"dpmedbench: found in {found}, expected in {here} beside the scripts of this "
            "workflow; run `pip uninstall dpmedbench` or leave PYTHONPATH unset"
        )
