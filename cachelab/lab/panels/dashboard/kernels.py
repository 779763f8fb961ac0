"""Kernels forked from one process that has made the panels already: a tab costs what it changes.

Each kernel is a process with widgets and state of its own, which it has in common with the others
for as long as it does not write to them. Started alone it would import and simulate for itself.
"""

import asyncio
import atexit
import os
import sys
import threading
from importlib.metadata import EntryPoint
from multiprocessing import forkserver, parent_process
from typing import Any

import ipywidgets
from ipykernel.kernelapp import IPKernelApp
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

if sys.platform == "linux":
    from multiprocessing.context import ForkServerProcess as Process
else:  # Apple's libraries do not survive a fork: there each kernel makes the panels for itself
    from multiprocessing.context import SpawnProcess as Process

# In this order: the panels' comms are those of the kernel that is imported first.
PRELOAD = [
    __name__,
    "ipykernel.debugger",
    "sqlalchemy.dialects.sqlite",
    "cachelab.server",
    "cachelab.lab.panels.dashboard.ready",
]


def preheat() -> None:
    """Start the process that kernels are forked from; it makes the panels while we go on."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # what is forked must have one thread
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # or it warns who debugs nothing
    if sys.platform == "linux":
        forkserver.set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()


class Kernel(Process):
    """A kernel, with what Jupyter asks of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, connection_file: str, env: dict[str, str], folder: str) -> None:
        super().__init__(daemon=True)
        self.connection_file = connection_file
        self.env = env
        self.folder = folder

    def run(self) -> None:
        """Be the kernel, until it is shut down or the dashboard ends."""
        os.setsid()  # a group of its own, which is signalled as one
        os.environ.clear()
        os.environ.update(self.env)
        os.chdir(self.folder)
        threading.Thread(target=_end_with_the_dashboard, daemon=True).start()
        parent = f"--IPKernelApp.parent_handle={os.getppid()}"
        app = IPKernelApp.instance()
        app.initialize(["-f", self.connection_file, parent])
        # The panels were there before the kernel: they have yet to be introduced to each other.
        ipywidgets.load_ipython_extension(app.shell)
        for comm in app.kernel.comm_manager.comms.values():
            comm.kernel = app.kernel
        app.start()
        atexit._run_exitfuncs()  # which a process of multiprocessing leaves out: servers end here

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self.exitcode

    def wait(self) -> int | None:
        """Wait for the end, and return the exit status."""
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal to this process alone."""
        assert self.pid is not None
        os.kill(self.pid, number)


def _end_with_the_dashboard() -> None:
    if dashboard := parent_process():
        dashboard.join()
        os._exit(1)


class Forked(LocalProvisioner):
    """Start kernels as `Kernel`, whatever command a kernelspec names."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start a kernel; the first one waits until the panels are made."""
        assert self.parent is not None
        kernel = Kernel(self.parent.connection_file, kwargs["env"], kwargs["cwd"])
        await asyncio.to_thread(kernel.start)
        self.process = kernel  # type: ignore[assignment]  # as good as a Popen
        self.pid = self.pgid = kernel.pid
        return self.connection_info


# As an entry point would, which would be there for every Jupyter of this environment.
KernelProvisionerFactory.provisioners["forked"] = EntryPoint(
    "forked", f"{__name__}:Forked", KernelProvisionerFactory.GROUP_NAME
)
