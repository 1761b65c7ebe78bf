"""One module for each verb, imported when it is called: `run(g, o)` does it and returns the exit status."""
