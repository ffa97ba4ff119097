"""Fetching a file from the net, with progress and a verified hash (the extra scratchmeta[data])."""

import importlib
from pathlib import Path
from types import ModuleType

from scratchmeta.data.archive import DataError


def extra(module: str) -> ModuleType:
    """Import a module of the extra scratchmeta[data], which only reading and fetching data need."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{module} is needed here: pip install 'scratchmeta[data]'") from error


def fetch(url: str, file: Path, md5: str) -> None:
    """Download a file and verify its MD5.

    Raises `DataError` where either fails; nothing is left behind then.
    """
    pooch = extra("pooch")
    requests = extra("requests")
    progress = _Progress(file.name)
    try:
        pooch.retrieve(
            url=url,
            known_hash=f"md5:{md5}",
            fname=file.name,
            path=file.parent,
            progressbar=progress,
        )
    except (ValueError, OSError, requests.RequestException) as error:
        raise DataError(f"{file}: download from {url} failed: {error}") from error
    finally:
        progress.close()


class _Progress:
    """What pooch asks of a progress bar, on a bar of rich."""

    def __init__(self, name: str) -> None:
        from rich import progress

        columns = progress.TextColumn("{task.description}"), progress.BarColumn()
        sizes = progress.DownloadColumn(), progress.TimeRemainingColumn()
        self.total = 0
        self._bar = progress.Progress(*columns, *sizes)
        self._task = self._bar.add_task(name, total=None)

    def update(self, n: int) -> None:
        """Advance by n bytes."""
        self._bar.start()
        self._bar.update(self._task, advance=n, total=self.total)

    def reset(self) -> None:
        """Go back to nothing, as pooch does before it declares the file complete."""
        self._bar.reset(self._task)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()
