"""What a person did wrong, said in one line."""


class InputError(ValueError):
    """Bad input: data, configuration or command line. The message says what, where, what to do.

    The command line prints it without a traceback and exits with code 2.
    """
