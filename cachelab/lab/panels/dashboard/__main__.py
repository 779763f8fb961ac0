"""Serve the dashboard with Voilà.

python -m cachelab.lab.panels.dashboard [--host=ADDRESS --token] [--port=8866] [--no-browser]
"""

import ipaddress
import sys
from pathlib import Path

from voila.app import Voila

from cachelab.lab.panels.dashboard import kernels

HERE = Path(__file__).parent
OPTIONS = {
    "Voila.ip": "127.0.0.1",  # this machine alone: a visitor may break servers
    "VoilaConfiguration.show_tracebacks": True,
    "KernelProvisionerFactory.default_provisioner_name": "forked",
    # Seconds, for a kernel whose page ended without a word.
    "MappingKernelManager.cull_idle_timeout": 300,
    "MappingKernelManager.cull_interval": 60,
}


class Dashboard(Voila):
    """Voilà with the page's own template, for others than this machine only with a token."""

    aliases = {**Voila.aliases, "host": "Voila.ip"}

    def setup_template_dirs(self) -> None:
        """Look for templates here first."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(HERE))

    def listen(self) -> None:
        """Listen, unless anybody on the network could then come in."""
        if not is_loopback(self.ip) and not self.identity_provider.auth_enabled:
            self.stop()
            sys.exit(
                f"--host={self.ip} lets others than this machine in, so it needs a token: "
                "add --token, which makes one up, or --token=SECRET"
            )
        kernels.preheat()
        super().listen()


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine reaches what listens on ``host``.

    >>> [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may be anybody's; or nothing, which is every address
        return False


if __name__ == "__main__":
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    Dashboard.launch_instance([str(HERE / "page.ipynb"), *options, *sys.argv[1:]])
