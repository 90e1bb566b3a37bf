"""Copy the chosen samples of a pool into shards of their own.

python -m curate.reshard subset=<.npy> shards=<folder|tar|pattern|URL> out=<folder|URL>
"""

import signal

from poolbench.command import Command

from curate.reshard.options import ReshardOptions
from curate.reshard.run import reshard


def run(options: ReshardOptions) -> int:
    """Reshard; SIGTERM is as Ctrl-C: what is being written is given up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return reshard(options)


if __name__ == "__main__":
    Command(ReshardOptions, run).start()
