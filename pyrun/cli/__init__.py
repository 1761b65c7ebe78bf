"""The command line: one table of verbs and options, a small parser for running them, click for explaining them."""
