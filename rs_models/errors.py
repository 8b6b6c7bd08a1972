"""The two errors that end in one sentence instead of a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, told in one sentence that names the file, row or key and says what to do.

    Scripts print the sentence and exit with code 2; a traceback would hide it.
    """


class ServiceError(RuntimeError):
    """A network or server that does not do its part; told in one sentence, exit code 1.

    The same command may work later.
    """
