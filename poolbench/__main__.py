"""The command poolbench, as python -m poolbench."""

from poolbench.command import main

if __name__ == "__main__":
    main()
