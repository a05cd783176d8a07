"""Where Pitlane keeps what it must find again: the history, and what this machine was measured to do."""

import os
from pathlib import Path


def home() -> Path:
    """The folder: PITLANE_HOME, or one in the user's data folder."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get("PITLANE_HOME") or Path(base) / "pitlane")
