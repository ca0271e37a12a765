"""The processes of a running sandbox, and the messages between them.

`boot` isolates a fresh interpreter and starts the supervisor in it, and `supervisor` serves the
owner. `warm` is the parent that sessions are forked from, and `worker` is a session. `spaces` and
`folders` keep sessions apart at the levels `namespace` and `process`. `wire` defines the messages.
"""
