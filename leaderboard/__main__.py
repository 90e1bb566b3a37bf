"""Submissions and the leaderboard.

python -m leaderboard submit run=runs/mine method="CLIP score, top 30 %" author="A. Name" track=filtering
python -m leaderboard validate runs/*/submission.json
python -m leaderboard build runs out=site
python -m leaderboard schema                        # writes leaderboard/schema/*.json anew
"""

from conf.errors import exit_on_user_error
from leaderboard.command import main

if __name__ == "__main__":
    exit_on_user_error(main)
