"""What isolates a session: namespaces and mounts, Landlock, the seccomp filter, limits, rights.

`isolation` combines the parts into what a session's process gives up; `view` builds the files it
sees; `syscalls` makes the system calls that Python has no function for. Each part restricts the
process that calls it. Which processes there are is decided in `processes`.
"""
