"""The one error type for input that a user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, told in one sentence that names the file, row or key and says what to do.

    Scripts print the sentence and exit with code 2; a traceback would hide it.
    """
