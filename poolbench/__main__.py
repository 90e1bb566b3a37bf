"""The command poolbench, as python -m poolbench."""

from poolbench.console import main

if __name__ == "__main__":
    main()
