"""Ray Train or Ray Tune in a thread, where it cannot take the signals that ask for a stop."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

from vrtspike.runtime.ray_session import environment, quiet_ray


class Fit(threading.Thread):
    """Build something with a `fit()` for a folder that is removed, and run it to its end.

    `environment` is Ray's meanwhile, where the user has not set it; what is raised is `error`.
    """

    def __init__(
        self, name: str, environment: Mapping[str, str], build: Callable[[str], Any]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._environment, self._build = environment, build
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Run until the end, or until it cannot be started."""
        storage = tempfile.mkdtemp(prefix="vrtspike-ray-")
        quiet_ray()
        try:
            with environment(self._environment):
                self._build(storage).fit()
        except BaseException as error:
            self.error = error
        finally:
            shutil.rmtree(storage, ignore_errors=True)
