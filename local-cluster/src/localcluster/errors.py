"""The one exception a person is meant to read."""


class LocalClusterError(Exception):
    """Something the user can act on: the text says what is wrong and what to do.

    The command line prints it as one line and exits with 1; anything else is a bug and keeps its traceback.
    """
