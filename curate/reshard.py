"""Copy the chosen samples of a pool into shards of their own.

python -m curate.reshard subset=<.npy> shards=<folder|tar|pattern|URL> out=<folder|URL>

samples_per_shard=10000   at most so many samples in a shard of the output
size=                     and at most so many bytes; null: any
shuffle=                  seed of a random order; null: the order of the input
workers=                  processes; null: one for each core
blur_faces=               folder of the pool's metadata: blur its face_bboxes; null: copy every picture as it is
quality=95                of blurred JPEG and WebP pictures
work=                     folder for what is known so far; null: <out>/.reshard. Needed where out= is a URL
overwrite=false           true: delete an earlier resharding in out= and begin anew
"""

import signal
import sys

from conf.command import parse
from conf.errors import UserError, exit_on_user_error
from curate.resharding.options import ReshardOptions
from curate.resharding.run import reshard


def main() -> int:
    """Parse the command line and run it."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((__doc__ or "").strip())
        return 0
    words, options = parse(sys.argv[1:], ReshardOptions)
    if words:
        raise UserError(f"{words[0]!r} is not key=value; --help shows the keys")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is being written is given up
    return reshard(options)


if __name__ == "__main__":
    exit_on_user_error(main)
