"""What a sweep is: written at its first start, so that later ones only go on with the same.

sweep.json holds the configuration and the fingerprint of the data.
"""

from __future__ import annotations

import json

from vrtspike.config.config import Config
from vrtspike.config.loader import keys_with
from vrtspike.config.roles import MAY_CHANGE_IN_SWEEP, PLACE
from vrtspike.errors import DataFormatError
from vrtspike.samples.shards import Manifest
from vrtspike.storage.folder import Folder
from vrtspike.training.preflight import check_continued

SWEEP = "sweep.json"


def check_same_sweep(config: Config, manifest: Manifest, folder: Folder) -> None:
    """Check that the sweep in a folder, if there is one, is this one; note it there.

    Raises ConfigError that names what is other.
    """
    if folder.size(SWEEP) is not None:
        try:
            facts = json.loads(folder.read(SWEEP))
            before, fingerprint = facts["config"], facts["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataFormatError(
                f"the sweep's {SWEEP} is damaged: {error}",
                where=folder,
                fix="restore it, or start a sweep of another run.name",
            ) from None
        free = keys_with(PLACE, MAY_CHANGE_IN_SWEEP)
        check_continued("sweep", folder, config, manifest, before, fingerprint, free=free)
    facts = {"config": config.model_dump(mode="json"), "fingerprint": manifest.fingerprint}
    folder.write(SWEEP, (json.dumps(facts, indent=2) + "\n").encode())
