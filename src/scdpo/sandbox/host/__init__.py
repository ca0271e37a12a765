"""What the owner's process uses: the sandbox and its sessions, their settings and results.

`client` starts a sandbox (by `launch`) and asks its supervisor for sessions, `session` runs blocks
in one of them, `base` defines what any executor offers, `config` the limits, and `compare` decides
whether two outputs are the same. This is the only wing that needs pydantic and asyncio.
"""
