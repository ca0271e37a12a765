"""Undoes changes of a block to the interpreter that would keep the next block from running."""

from __future__ import annotations

import builtins
import contextlib
import sys
from builtins import all as _all
from builtins import map as _map
from operator import is_ as _is
from signal import ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL
from signal import setitimer as _set_timer
from sys import getrecursionlimit as _recursion_limit
from sys import setprofile as _set_profile
from sys import setrecursionlimit as _set_recursion_limit
from sys import settrace as _set_trace
from typing import Any

_MIN_RECURSION = 300
"""Frames that may be needed to show a value and a traceback."""
# Names that code may replace permanently, as nothing here relies on them.
_FREE = frozenset(("print", "input", "open", "help", "display", "get_ipython", "_", "__import__"))


class Mending:
    """The interpreter as it was when the session began.

    Works even if the code has replaced any of the builtin functions.
    """

    def __init__(self, stdout: Any, stderr: Any) -> None:
        self._stdout, self._stderr = stdout, stderr
        self._builtins = vars(builtins)
        self._whole = dict(self._builtins)
        self._names = [name for name in self._whole if name not in _FREE]
        self._values = [self._whole[name] for name in self._names]
        self._modules = sys.modules
        self._loaded = dict(sys.modules)
        self._path = sys.path
        self._finders = tuple(sys.meta_path)

    def mend(self) -> None:
        """Restore what was removed or replaced, and stop timers and tracing."""
        if not _all(_map(_is, _map(self._builtins.get, self._names), self._values)):
            for name in self._names:
                self._builtins[name] = self._whole[name]
        for name in _FREE:
            if name not in self._builtins and name in self._whole:
                self._builtins[name] = self._whole[name]
        with contextlib.suppress(OSError):
            for timer in (ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF):
                _set_timer(timer, 0)
        _set_trace(None)
        _set_profile(None)
        self._mend_modules()
        if sys.stdout is None:
            sys.stdout = self._stdout
        if sys.stderr is None:
            sys.stderr = self._stderr
        if _recursion_limit() < _MIN_RECURSION:
            _set_recursion_limit(_MIN_RECURSION)

    def _mend_modules(self) -> None:
        if sys.modules is not self._modules:
            sys.modules = self._modules
        if "builtins" not in self._modules or "sys" not in self._modules:
            for name, module in self._loaded.items():
                self._modules.setdefault(name, module)
        if not sys.path:
            sys.path = self._path
        if not sys.meta_path:
            sys.meta_path = [*self._finders]
