"""Sends lines of logs to other stores: at least once, from where it stopped, with the logs on the disk as its buffer.

A *target* is a URL. Its protocol's module makes a batch of records into requests and tells what the answer means; the
shipper reads, sends, waits and remembers. Nothing is kept in memory but the batch that is under way.
"""
