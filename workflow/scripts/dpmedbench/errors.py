"""The one exception for what a user can put right."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the user's input.

    The message is one clear sentence: it names the file or key, what was found, what was
    expected and what to do. It is shown without a stack trace.
    """
