"""The Otus agent: tasks, the daemon and the command line."""
