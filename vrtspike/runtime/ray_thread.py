"""Run Ray Train or Ray Tune in a thread, so that it does not replace our signal handlers."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from vrtspike.runtime.ray_session import environment, quiet_ray


class RayThread(threading.Thread):
    """A thread that runs `build(folder).fit()` with a temporary folder for Ray's files.

    `environment` is set meanwhile, except variables that are already set. An exception is kept in
    `error`.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], build: Callable[[str], Any]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._environment, self._build = environment, build
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Run `fit()` to its end; called by the thread."""
        storage = tempfile.mkdtemp(prefix="vrtspike-ray-")
        quiet_ray()
        try:
            with environment(self._environment):
                self._build(storage).fit()
        except BaseException as error:
            self.error = error
        finally:
            shutil.rmtree(storage, ignore_errors=True)
