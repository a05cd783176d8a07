"""The server leaves nothing behind where it had to keep things in a folder of its own."""

import signal

import pytest

from tests.page.site import start


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_folders_that_last_as_long_as_the_server_go_with_it(end, tmp_path):
    home, temporary, blocked = (tmp_path / name for name in ("home", "temporary", "blocked"))
    home.mkdir(), temporary.mkdir(), blocked.touch()
    places = {"PITLANE_HOME": str(blocked / "home"), "PITLANE_CACHE": str(blocked / "cache")}
    site = start(home, TMPDIR=str(temporary), **places)
    kept = sorted(folder.name for made in temporary.glob("pitlane-*") for folder in (made, *made.glob("*.db")))
    site.process.send_signal(end)
    site.process.wait(30)
    assert len(kept) == 3 and "history.db" in kept
    assert not list(temporary.glob("pitlane-*"))
