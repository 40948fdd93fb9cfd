"""The error that users cause: its message says what was wrong, where, and what would be right."""


class InputError(ValueError):
    """Bad input, met at the door.

    The message is one line, meant for the person who gave the input; the binaries print it
    without a traceback and exit with code 2. Anything else that is raised is a bug of ours.
    """

    def __init__(self, message: str) -> None:
        """Joins what came in several lines, as other libraries' errors inside a message do."""
        super().__init__(" ".join(line.strip() for line in message.splitlines()))
