"""What the evaluation tasks are and where their data come from.

python -m tasks list [tasks=vtab,imagenet_shifts,wilds/*]
"""

from conf.errors import exit_on_user_error
from tasks.listing import main

if __name__ == "__main__":
    exit_on_user_error(main)
