"""Submissions and the leaderboard.

python -m leaderboard submit run=runs/mine method="CLIP score, top 30 %" author="A. Name" track=filtering
python -m leaderboard push runs/mine/submission.json repo=user/name     # to the Hub; or submit ... push=hub repo=...
python -m leaderboard validate runs/*/submission.json
python -m leaderboard build runs out=site
python -m leaderboard diff old/leaderboard.json new/leaderboard.json    # what a change does to the boards
python -m leaderboard plot site/leaderboard.json kind=scaling out=scaling.pdf
python -m leaderboard schema                        # writes leaderboard/schema/*.json anew
"""

from leaderboard.command import VERBS

if __name__ == "__main__":
    VERBS.start()
