"""A pool: its files, its columns, and the passes over them.

How work is kept and found again, here and wherever a command does a pool piece by piece:

- A piece is one file of the pool (select, inspect, centroids, arrived), or one shard (score, download, pack, reshard).
  It is done by one process and depends on nothing but its own input and the options; pieces are done in any order.
- What is made of a piece has a mark that is written last: whoever finds the mark finds the whole. Marks and results are
  written beside their place and renamed (`poolbench.files.atomic`), so that a crash leaves all of one or nothing. A
  mark of a file does not wait for the disk: one without its end, as a crash of the machine may leave it, is none.
- A mark is found by what the result depends on, in its name or in it: the piece as it was (the stamp of a file, from
  size and time of writing; bytes of a shard), and the identity of what was done (options, thresholds, digests of the
  files that they name, a version for each change of the rule). When one of these changes the result is made anew.
- The parts of an array (`part=i/n`) share the folder. Each does its own pieces, every n-th, and where it needs all it
  does what the others have not done yet: no part waits for another, and two that do the same piece write the same
  bytes. A command that merges, or that has no parts, claims the folder (`poolbench.files.claimed`).
- A piece that cannot be used is told, has no mark, and is tried again by the next run.
- The last step of an array, `merge=n`, makes nothing: where a piece has no mark it names the part whose piece it is
  (parts.py). That a part could not use a file, it finds beside where the mark would be (`.bad`).

passes.py does so for files: a mark is `<work>/<function>-<digest of its name and arguments>/<file>.<stamp>.json`, and
arrays lie beside it. scored.py keeps the record within the parquet itself, which is written after its npz. A downloaded
shard's mark is its `_stats.json`, beside a plan that says how all were made; a resharded one's is `done/<n>.json`,
beside a state that does; a packed one's too, beside a plan.
"""
