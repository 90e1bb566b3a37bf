"""Pictures with captions that people have (folder, table, COCO, Hub data set) as shards and metadata of a pool.

python -m curate.pack from=<folder|table|captions_*.json|parquet> out=<folder> [pictures=<folder>] [part=i/n | merge=n]

The same command again packs what is missing. docs/pack.md explains it.
"""

import signal

from poolbench.command import Command

from curate.pack.options import PackOptions


def run(options: PackOptions) -> int:
    """Pack; SIGTERM is as Ctrl-C: what is being written is given up.

    Raises:
        UserError: wrong options, nothing to pack, or a folder with something else in it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from curate.pack.run import pack  # Arrow, which help and most mistakes do without

    return pack(options)


if __name__ == "__main__":
    Command(PackOptions, run).start()
