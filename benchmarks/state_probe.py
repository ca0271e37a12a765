"""The block that dumps what a session holds, and the comparison of two such dumps.

The block prints one JSON object. It leaves no name behind in the session, and shortens what is
long to a hash, which still tells two states apart.
"""

from __future__ import annotations

import json

_SOURCE = r"""
import decimal, hashlib, json, linecache, os, pickle, random, re, sys, tempfile, threading
import types, warnings

def short(text, keep=300):
    if len(text) <= keep:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{text[:keep]}… {len(text)} characters, sha256 {digest}"

def shown(value):
    # Addresses differ between processes, and so may the names of private folders.
    try:
        text = repr(value)
    except BaseException as error:
        text = f"<repr raised {type(error).__name__}>"
    text = re.sub(r"0x[0-9a-f]{6,}", "0x…", text.replace(tempfile.gettempdir(), "<tmp>"))
    return short(text)

def pickled(value):
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except BaseException as error:
        return type(error).__name__

def described(value):
    kind = type(value)
    found = [f"{kind.__module__}.{kind.__qualname__}", shown(value)]
    if isinstance(value, types.FunctionType):
        code = value.__code__
        cells = [shown(cell.cell_contents) for cell in value.__closure__ or ()]
        found += [code.co_code.hex(), shown(code.co_consts), shown(value.__defaults__), *cells]
    elif not isinstance(value, (types.ModuleType, type)):
        found += [shown(getattr(value, "__dict__", None)), pickled(value)]
    return short(" | ".join(found), 600)

def files():
    found = {}
    for folder, _, names in os.walk("."):
        found[folder] = "folder"
        for name in names:
            path = os.path.join(folder, name)
            try:
                with open(path, "rb") as file:
                    found[path] = hashlib.sha256(file.read()).hexdigest()
            except OSError as error:
                found[path] = f"errno {error.errno}"
    return found

def hashed(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()

modules = sorted(sys.modules)
umask = os.umask(0o022)
os.umask(umask)
state = {f"name {name}": described(value) for name, value in session.items()}
state |= {f"file {path}": content for path, content in files().items()}
state |= {
    f"line cache {name}": hashed(entry)
    for name, entry in linecache.cache.items()
    if name.startswith("Cell In")
}
state |= {
    "random": hashed(random.getstate()),
    "modules": f"{len(modules)}: {short(' '.join(modules), 100000)}",
    "cwd": os.getcwd().replace(tempfile.gettempdir(), "<tmp>"),
    "environment": shown(sorted(os.environ.items())),
    "sys.path": shown(sys.path),
    "recursion limit": f"{sys.getrecursionlimit()}",
    "digits of integers": f"{sys.get_int_max_str_digits()}",
    "decimal context": shown(decimal.getcontext()),
    "warnings": shown(warnings.filters),
    "threads": f"{threading.active_count()}",
    "umask": f"{umask}",
}
if "numpy" in sys.modules:
    numpy = sys.modules["numpy"]
    name, keys, *rest = numpy.random.get_state()
    state["numpy.random"] = hashed([name, keys.tolist(), rest])
    state["numpy print options"] = shown(sorted(numpy.get_printoptions().items()))
if "mpmath" in sys.modules:
    state["mpmath"] = f"{sys.modules['mpmath'].mp}"
print(json.dumps(dict(sorted(state.items()))))
"""

PROBE = f"""
import builtins as __builtin
__names = __builtin.globals()
__builtin.exec({_SOURCE!r}, {{"session": {{
    __name: __names[__name] for __name in __names if __name not in ("__builtin", "__names")
}}}})
del __builtin, __names
"""
"""Runs in a namespace of its own: a session may have bound `sum` or `print` to something else."""

VANDAL = r"""
import os, random, shutil, sys
random.seed(4711)
if "numpy" in sys.modules:
    sys.modules["numpy"].random.seed(4711)
for __value in list(globals().values()):
    if isinstance(__value, (list, dict, set)) and "__builtin" not in __value:
        try:
            __value.clear()
        except BaseException:
            pass
for __name in [n for n in globals() if not n.startswith("_")]:
    if __name not in ("os", "shutil"):
        del globals()[__name]
for __value in os.listdir("."):
    shutil.rmtree(__value) if os.path.isdir(__value) else os.unlink(__value)
open("vandal", "w").write("was here")
"""
"""Run in a copy: spoils all state it can reach, which must reach no other session."""


def differences(wanted: str, found: str) -> list[str]:
    """What differs between two dumps, an entry a line; what is no dump equals nothing."""
    try:
        a, b = json.loads(wanted), json.loads(found)
    except json.JSONDecodeError:
        return [f"no dump of the state: {wanted[-300:]!r} and {found[-300:]!r}"]
    return [
        f"{key}: replayed {a.get(key, 'absent')!r}, cloned {b.get(key, 'absent')!r}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]
