"""SPDY/3.1, the part of it that Kubernetes uses: streams inside an upgraded HTTP/1.1 connection, opened by the client.

Flow control is TCP's: the Go programs at the other end neither open windows nor heed them, so waiting for a
WINDOW_UPDATE would stop every stream after 64 KiB. What a stream has received and nobody has read yet is bounded by not
reading on.
"""
