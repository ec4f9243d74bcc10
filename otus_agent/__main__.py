"""``python -m otus_agent`` is ``otus``."""

from otus_agent.cli import main

if __name__ == "__main__":
    main()
