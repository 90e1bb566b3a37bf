"""Copy the chosen samples of a pool into shards of their own.

python -m curate.reshard subset=<.npy> shards=<folder|tar|pattern|URL> out=<folder|URL>
"""

import signal
import sys

from curate.reshard.options import ReshardOptions
from curate.reshard.run import reshard
from poolbench.command import parse
from poolbench.errors import UserError, exit_on_user_error


def main() -> int:
    """Parse the command line and run it."""
    words, options = parse(sys.argv[1:], ReshardOptions)
    if words:
        raise UserError(f"{words[0]!r} is not key=value; --help shows the keys")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is being written is given up
    return reshard(options)


if __name__ == "__main__":
    exit_on_user_error(main)
