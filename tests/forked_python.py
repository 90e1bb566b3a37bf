"""What stands in for the interpreter where something else starts it, such as torchrun: it asks the fork server instead.

`forked.interpreter()` makes a program of it. Signals are passed on, and the command ends with this process.
"""

import os
import signal
import sys

sys.path.append(os.path.dirname(__file__))  # noqa: PTH120

from forked import Process, server


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "-u"]
    request = {"words": words, "cwd": os.getcwd(), "environment": dict(os.environ), "new_session": False}  # noqa: PTH109
    process = Process(server(), request, inherit=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: os.kill(process.pid, number))
    status = process.wait()
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main()
