"""The one exception for what a user can put right."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the user's input.

    The message is one clear sentence: it names the file or key, what was found, what was
    expected and what to do. It is shown without a stack trace.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
