"""The frame of every script: its log, and one sentence for a user's mistake."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from dpmedbench import interruption
from dpmedbench.console import logged, say
from dpmedbench.errors import UserError, first_line
from dpmedbench.files import refusal


@contextlib.contextmanager
def running(snakemake) -> Iterator[None]:
    """Run a script's body: lines and warnings go to its log, as does the trace of a failure.

    A UserError, a full disk or a signal ends the job with one sentence, anything else with a stack
    trace.
    """
    with logged(snakemake.log[0]) as log:
        warnings.showwarning = lambda message, kind, file, line, *_: print(
            f"{file}:{line}: {kind.__name__}: {message}", file=log
        )
        try:
            with interruption.at_once():
                _check_origin(snakemake.scriptdir)
                yield
        except UserError as error:
            say(f"error in {snakemake.rule}: {error}")
            sys.exit(1)
        except (interruption.Stopped, KeyboardInterrupt) as error:
            what = str(error) or "interrupted"
            say(f"{snakemake.rule} {what}; run the same command again to go on")
            sys.exit(128 + signal.SIGTERM)
        except Exception as error:
            if refusal(error):
                say(f"error in {snakemake.rule}: {first_line(error)}; see to it and run again")
                sys.exit(1)
            traceback.print_exc(file=log)
            if hasattr(snakemake.wildcards, "seed"):
                target = _bug_report(snakemake.log[0])
                say(f"to report this: snakemake {target} and the same options")
            raise


def _bug_report(log: str) -> Path:
    """The target that packs the cell of a job."""
    _, study, _, *cell = Path(log).with_suffix(".zip").parts
    return Path("results", study, "bug_reports", *cell)


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
