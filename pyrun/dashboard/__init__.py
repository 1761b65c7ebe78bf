"""The dashboard: what a node runs and what is wrong with it, in a browser.

Two processes: the reader has the privileges, and asks the runtime and reads logs; the web process has none, and talks
to browsers. What the one may ask of the other is a few questions that change nothing.
"""
