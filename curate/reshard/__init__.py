"""Copy chosen samples from shards to shards: find them, plan where they go, copy their bytes.

- options: what the command takes; run: a resharding from its first step to its report
- folder: what lies in the folder of the output, what was begun, what is written
- job: what workers need to know, and the places of all that is kept
- schedule: which task is next; processes: tasks in processes
- index: the samples of a shard of the input; tars: their headers, found and written anew
- plan: the order of the samples and the shards of the output; copy: one of these written
- faces: the boxes of the chosen samples, and pictures without their faces
"""
