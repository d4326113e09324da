"""The one exception for what a user can put right."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the user's input.

    The message is one clear sentence: it names the file or key, what was found, what was
    expected and what to do. It is shown without a stack trace.
    """


def one_line(error: BaseException, most: int = 120) -> str:
    """An error's whole message in one line, at most `most` characters; its kind where it has none.

    For what a library raises over a broken file, in the middle of a sentence.
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
