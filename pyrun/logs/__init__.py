"""The logs of pods, as the CRI's runtimes write them below /var/log/pods: found, searched, joined and followed.

Nothing here needs a daemon: the files are what there is, of whichever runtime wrote them. A line of theirs is
`TIME STREAM TAG CONTENT` (the kubelet's design document "CRI: log format"); files lie at NAMESPACE_POD_UID/CONTAINER/
ATTEMPT.log, beside what the kubelet's rotation made of them: ATTEMPT.log.YYYYMMDD-HHMMSS, and the same with .gz.
"""
