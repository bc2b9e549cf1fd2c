"""Start the slow stages of `reprise` from a process that has imported their libraries.

On tiny data, nine tenths of the time of a stage are its imports. A stage is therefore a fork of a server that has them:
a process of its own with the caller's folder, variables and streams, and with the code of its own repository. What
a fork cannot take over must be equal, or the program starts as usual: the variables that libraries read when they are
imported, limits, namespaces, user and processors.
"""

import atexit
import gc
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

STAGES = {"prepare", "check-data", "preflight", "train", "evaluate"}
LIBRARIES = (
    "torch", "torch._dynamo", "torch.distributed.tensor", "transformers.modeling_utils", "transformers.models.bert",
    "accelerate", "datasets", "evaluate", "hydra", "pandas", "rich.progress", "safetensors.torch", "scipy.stats",
    "sklearn.metrics", "sklearn.linear_model", "typer",
)  # fmt: skip
# Beginnings of variables that libraries read when they are imported, and those that a stage sets itself before.
READ_AT_IMPORT = (
    "ATEN", "CUDA", "DNNL", "GOMP", "HF_", "HOME", "LANG", "LC_", "LD_", "MALLOC", "MKL", "NPY", "OMP",
    "ONEDNN", "OPENBLAS", "PJRT", "PYTHON", "TORCH_", "TRANSFORMERS", "TZ", "XDG",
)  # fmt: skip
SET_BY_STAGES = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "GOMP_SPINCOUNT": "3000"}
STREAMS = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST = 2**18  # of a request in bytes


def start(folder: Path, owner: int) -> None:
    """Write a program `reprise` to a folder, and start the server that it calls.

    Args:
        folder: new; goes first on the PATH of tests.
        owner: the process with which the server ends.
    """
    folder.mkdir(parents=True)
    program, real, address = folder / "reprise", Path(sys.executable).with_name("reprise"), folder / "socket"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" call "{address}" "{real}" "$@"\n')
    program.chmod(0o755)
    with (folder / "log").open("w") as log:
        subprocess.Popen(
            [sys.executable, __file__, "serve", str(address), str(owner)],
            cwd="/", env=os.environ | SET_BY_STAGES, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True,
        )  # fmt: skip


def call(address: str, program: str, arguments: list[str]) -> NoReturn:
    """Let the server run `reprise` like this process, or become it."""
    process = 0
    if arguments and arguments[0] in STAGES:
        request = {"arguments": arguments, "folder": str(Path.cwd()), "variables": dict(os.environ),
                   "ignored": [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN],
                   "surroundings": surroundings(os.environ)}  # fmt: skip
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with suppress(OSError):  # the server still imports, or has ended
            server.connect(address)
            socket.send_fds(server, [json.dumps(request).encode()], range(STREAMS))
            process = int(server.recv(20) or 0)
    if not process:
        os.execv(program, [program, *arguments])
    for number in SIGNALS:
        signal.signal(number, lambda number, _: os.kill(process, number))
    code = int(server.recv(20) or 1)
    if code < 0:  # of a signal
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def surroundings(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return what a process has of its parent and a fork of the server would not have."""
    return {
        "variables": {
            name: value
            for name, value in variables.items()
            if name.startswith(READ_AT_IMPORT)
            and value != SET_BY_STAGES.get(name)
            and not (name == "PYTHONPATH" and Path(value, "reprise").is_dir())
        },
        "namespaces": [str(Path("/proc/self/ns", name).readlink()) for name in ("mnt", "net", "pid", "user")],
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT_" in name},
        "user": [os.getuid(), os.getgid()],
        "processors": sorted(os.sched_getaffinity(0)),
    }


def serve(address: str, owner: int) -> NoReturn:
    """Import the libraries, then run stages until the owner has ended."""
    own = json.loads(json.dumps(surroundings(os.environ)))  # libraries set variables, too
    for library in LIBRARIES:
        __import__(library)
    gc.freeze()  # a collection would copy the memory that processes share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that no process of a connection is left
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen(64)
        while Path(f"/proc/{owner}").exists():
            if select.select([listening], [], [], 2)[0]:
                connection, _ = listening.accept()
                if os.fork() == 0:
                    break
                connection.close()
        else:
            os._exit(0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    content, streams, _, _ = socket.recv_fds(connection, LONGEST, STREAMS)
    request = json.loads(content) if content else {}
    if (given := request.get("surroundings", {})) != own:
        print([(name, value, own[name]) for name, value in given.items() if value != own[name]], file=sys.stderr)
        connection.send(b"0")
        os._exit(0)
    if process := os.fork():
        watch(connection, process)
    connection.close()
    become(request, streams)


def watch(connection: socket.socket, process: int) -> NoReturn:
    """Report a process and its exit code to the caller; kill it if the caller is killed."""
    connection.send(str(process).encode())
    descriptor = os.pidfd_open(process)
    ready = select.select([connection.fileno(), descriptor], [], [])[0]
    if connection.fileno() in ready:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if connection.fileno() not in ready:
        connection.send(str(code).encode())
    os._exit(0)


def become(request: Mapping[str, Any], streams: list[int]) -> NoReturn:
    """Take over the caller's streams, folder and variables, and run `reprise` as Python would."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["variables"])
    for number in SIGNALS:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
    # As `reprise` does by starting itself again: the code is that of the repository.
    folder = Path(request["folder"])
    root = next((parent for parent in (folder, *folder.parents) if (parent / ".dvc").is_dir()), folder)
    if (root / "src/reprise").is_dir() and "REPRISE_REEXECUTED" not in os.environ:
        os.environ |= {"PYTHONPATH": str(root / "src"), "REPRISE_REEXECUTED": "1"}
    sys.path[:1] = [request["folder"], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = ["reprise", *request["arguments"]]
    try:
        runpy.run_module("reprise", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without the removal of each object, which would copy the shared memory


if __name__ == "__main__":
    mode, address, target, *arguments = sys.argv[1:]
    if mode == "serve":
        serve(address, int(target))
    else:
        call(address, target, arguments)
