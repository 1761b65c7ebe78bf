"""A plan in words: explain, errors of steps, hints, names of flags and errnos."""
