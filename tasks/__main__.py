"""What the evaluation tasks are, and their data.

python -m tasks list [tasks=vtab,imagenet_shifts,wilds/*]
python -m tasks download data=<folder> [tasks=...] [jobs=4] [offline=true]
python -m tasks verify data=<folder> [tasks=...] [images=true]
python -m tasks lock [tasks=...]
python -m tasks lock tasks=demo data=<folder>
python -m tasks names [file=<json>]
python -m tasks export dataset=<name in clip_benchmark> root=<its data> out=<folder> [split=test] [task=<key>]
python -m tasks export dataset=parquet task=<key> root=<the Hub's files> out=<folder> [split=test]
python -m tasks captions task=<key or folder> out=<folder> [data=<folder>] [split=train]
"""

from tasks.command import VERBS

if __name__ == "__main__":
    VERBS.start()
