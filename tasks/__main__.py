"""What the evaluation tasks are, and their data.

python -m tasks list [tasks=vtab,imagenet_shifts,wilds/*]
python -m tasks download data=<folder> [tasks=...] [jobs=4] [offline=true]
python -m tasks verify data=<folder> [tasks=...] [images=true]
python -m tasks lock [tasks=...]
python -m tasks lock tasks=demo data=<folder>
python -m tasks names [file=<json>]
python -m tasks export dataset=<name in clip_benchmark> root=<its data> out=<folder> [split=test] [task=<key>]
"""

from tasks.command import VERBS

if __name__ == "__main__":
    VERBS.start()
