"""Copy chosen samples from shards to shards: find them, plan where they go, copy their bytes.

- options: what the command takes; run: a resharding from its first step to its report
- folder: what lies in the folder of the output, what was begun, what is written
- job: what workers need to know, and the places of all that is kept
- schedule: which task is next; processes: tasks in processes; parts: some of the tasks, by one process of many
- index: the samples of a shard of the input; stored: the file that keeps them; quick: an ordinary tar looked through
- tars: any tar looked through, and headers written anew
- plan: the order of the samples and the shards of the output; copy: one of these written; straight: from mapped files
- faces: the boxes of the chosen samples, and pictures without their faces
"""
