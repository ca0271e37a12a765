"""Functions that run in a forked child, for what cannot be undone in this process."""

import os
import pickle

import pytest


def in_child(function, *arguments):
    """Run in a forked child that leads its own session; returns what `function` does, or how
    the child died as a negative number. What it raises is raised here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            result = (True, function(*arguments))
        except BaseException as error:
            result = (False, repr(error))
        os.write(writer, pickle.dumps(result))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        answer = answers.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not answer:
        return status
    good, result = pickle.loads(answer)
    if not good:
        pytest.fail(result)
    return result
