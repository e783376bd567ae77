"""A process that has imported all of the program and forks one run of an entry for each line it is sent.

A sweep needs thousands of ticks. What an import does to the world (nothing) is no part of what is tested, so it is done
once. Run as a program by `kill.Warm`; speaks JSON lines: a request, then `go`; it answers with the pid, then the status.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import sys
from contextlib import suppress
from typing import NoReturn

import orchestration

_PR_SET_PTRACER, _ANYBODY = 0x59616D61, -1  # linux/prctl.h: let a tracer that is not our parent attach


def main() -> None:
    for module in pkgutil.walk_packages(orchestration.__path__, "orchestration."):
        importlib.import_module(module.name)
    for line in sys.stdin:
        request = json.loads(line)
        go, let = os.pipe2(os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            os.close(let)
            _run(request, go)
        os.close(go)
        print(child, flush=True)
        sys.stdin.readline()
        with suppress(BrokenPipeError):  # killed in the read for which this is
            os.write(let, b".")
        os.close(let)
        print(os.waitpid(child, 0)[1], flush=True)


def _run(request: dict[str, object], go: int) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(_ANYBODY), 0, 0, 0)
    name, *arguments = str(request["entry"]).split()
    entry = importlib.import_module(f"orchestration.{name}")
    environ = {str(name): str(value) for name, value in dict(request["environ"]).items()}  # type: ignore[call-overload]
    os.environ.clear()
    os.environ.update(environ)
    output = os.open(str(request["output"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.read(go, 1)
    code = 70
    try:
        code = entry.main(arguments) if name == "klorosctl" else entry.main(arguments, environ)
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
