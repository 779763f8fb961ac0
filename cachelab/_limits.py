"""What the system allows a process, where its default is too little."""

from contextlib import suppress

OPEN_FILES = 4096  # as JupyterLab asks for; the shells of a Mac begin with 256


def raise_open_files(wanted: int = OPEN_FILES) -> None:
    """Let this process and its children open so many files, or as many as the system allows."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # the kernel may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
