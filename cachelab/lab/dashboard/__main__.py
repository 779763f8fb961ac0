"""Serve the dashboard with Voilà: python -m cachelab.lab.dashboard [--port=8866] [--no-browser]."""

import sys
from pathlib import Path

from voila.app import Voila

HERE = Path(__file__).parent
OPTIONS = {
    "Voila.ip": "127.0.0.1",  # this machine alone: a visitor may break servers
    "VoilaConfiguration.show_tracebacks": True,
    "MappingKernelManager.cull_idle_timeout": 300,  # seconds, for a kernel whose page ended without a word
    "MappingKernelManager.cull_interval": 60,
}


class Dashboard(Voila):
    """Voilà with the page's own template."""

    def setup_template_dirs(self) -> None:
        """Look for templates here first."""
        super().setup_template_dirs()
        self.template_paths.insert(0, str(HERE))


if __name__ == "__main__":
    options = [f"--{name}={value}" for name, value in OPTIONS.items()]
    Dashboard.launch_instance([str(HERE / "page.ipynb"), *options, *sys.argv[1:]])
