"""Runs experiments one after another as a ZeroGPU Space would: reads them as JSON, writes what came of them."""

import json
import sys
import threading
import time
from pathlib import Path

from gradio.context import LocalContext

from engine.refusal import Refusal
from engine.run.jobs import Jobs
from engine.run.store import Store
from engine.spec import Experiment


def ended(jobs: Jobs, run: str) -> str:
    while jobs.state(run) in ("queued", "running"):
        jobs.watch(run)
        time.sleep(0.05)
    return jobs.state(run)


def main(folder: str) -> None:
    jobs, found = Jobs(Store(Path(folder) / "history.db")), []
    for asked in json.loads(sys.stdin.read()):
        LocalContext.request.set(asked.get("who"))
        try:
            run = jobs.submit(Experiment.read(asked["experiment"]), "me")
        except Refusal as refusal:
            found.append({"refused": str(refusal)})
            continue
        if "stop_after" in asked:
            threading.Timer(asked["stop_after"], jobs.cancel, (run, "me")).start()
        begun = time.monotonic()
        state = ended(jobs, run)
        lines = [record.line() for record in jobs.records(run)]
        found.append({"state": state, "result": jobs.result(run), "lines": lines, "took": time.monotonic() - begun})
    jobs.close()
    (Path(folder) / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
