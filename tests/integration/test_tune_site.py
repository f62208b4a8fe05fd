"""`fullhouse tune` in front of a served site whose capacity is known: its threads sleep."""

import json
from pathlib import Path

from supervised import Site

SLEEPING = "    time.sleep(0.05)\n    return HttpResponse('version 1')"
CAPACITY = 2 / 0.05


def test_the_knee_of_a_site_whose_threads_sleep(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    urls = (site.folder / site.name / "urls.py").read_text()
    site.write("urls", urls.replace('    return HttpResponse("version 1")', SLEEPING))
    with site.served("--threads=2", workers=1) as running:
        answer = site.command("tune", site.name, str(running.port), "--seconds=2", "--format", "json")
        assert answer.returncode == 0, answer.stderr
        found = json.loads(answer.stdout)
        # A little above, the queue of a step of seconds has no time to grow.
        assert found["knee"]["offered"] <= 1.5 * CAPACITY, found["steps"]
        highest = max(found["steps"], key=lambda step: float(step["offered"]))
        assert highest["answered"] < highest["offered"]
        assert highest["answered"] <= 1.5 * CAPACITY  # what is answered within the step, and just after it
        assert len(found["steps"]) == answer.stderr.count("\n")
        refused = site.command("tune", site.name, str(running.port), "--seconds=1", "--path", "/nothing")
        assert (refused.returncode, "/nothing does not answer" in refused.stderr) == (5, True)


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    for options in (("--seconds=0",), ("--path=events/",)):
        answer = site.command("tune", site.name, *options)
        assert (answer.returncode, "give a second or more, and a path that begins with /" in answer.stderr) == (2, True)
