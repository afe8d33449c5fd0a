"""`python -m charrun` is the command `charrun`."""

import os
import signal


def run() -> None:
    """The command as a process of its own, that can be interrupted while Python still reads the program."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where a shell has it ignored
    if is_heard:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from charrun.cli import run

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    run()
