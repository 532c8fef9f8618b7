"""Collectstatic goes on beside the checks where that changes nothing but the time it takes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.onhost.test_static_sources import FILES, SETTINGS, Site, content, make_site

BESIDE = "import os; os.sched_getaffinity = lambda _: {0, 1}\n"
# What keeps it in the one process: no second processor, another thread, or another place than the release.
ALONE = {
    "one processor": "import os; os.sched_getaffinity = lambda _: {0}\n",
    "a thread": f"{BESIDE}import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n",
    "outside": f"""{BESIDE}
STATIC_ROOT = BASE_DIR.parent.parent / "static"
STORAGES = {{"staticfiles": {{"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}}}
""",
    "another storage": f'{BESIDE}STORAGES = {{"staticfiles": {{"BACKEND": "posts.storage.Own"}}}}\n',
}
OWN = "from django.contrib.staticfiles.storage import ManifestStaticFilesStorage\nclass Own(ManifestStaticFilesStorage): pass"
# The processes of the checks and of collectstatic, written down; and one of them that waits.
TOLD = """
from django.core import checks, management
def _told(name, wait=False):
    with open(BASE_DIR / name, "w") as file:
        file.write(str(os.getpid()))
    if wait:
        import time
        time.sleep(60)
@checks.register
def _checked(app_configs, **_):
    _told("checks")
    return []
_call = management.call_command
def _collect(*words, **more):
    _told("collects", {wait})
    return _call(*words, **more)
management.call_command = _collect
"""
WRONG = """
@checks.register
def _wrong(app_configs, **_):
    import time
    while not os.path.exists(BASE_DIR / "collects"):
        time.sleep(0.01)
    return [checks.Error("it's wrong", id="blog.E001")]
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """One without a release."""
    return make_site(tmp_path)


def made(site: Site, more: str, **files: str) -> tuple[Path, str]:
    """The first release, with more settings and files."""
    return site.release(1, {**FILES, "blog/settings.py": SETTINGS + more, "posts/storage.py": OWN, **files})


def processes(release: Path) -> set[str]:
    """The numbers of the processes that have checked and collected."""
    return {(release / name).read_text() for name in ("checks", "collects")}


def test_beside(site: Site) -> None:
    """Two processes, and what they leave is what one leaves."""
    one = made(site, ALONE["one processor"] + TOLD.format(wait=False))
    two = site.release(2, {**FILES, "blog/settings.py": SETTINGS + BESIDE + TOLD.format(wait=False)})
    answers = [site.start(*each, None, check="ERROR", static="app.js") for each in (one, two)]
    assert [len(processes(each)) for each, _ in (one, two)] == [1, 2]
    assert {**answers[0], "static_root": ""} == {**answers[1], "static_root": ""}
    assert content(one[0]) == content(two[0])
    sources = [(each / ".fabdjango" / "static-sources.json").exists() for each, _ in (one, two)]
    assert sources == [True, True]


def test_meanwhile(site: Site) -> None:
    """The server's modules get their bytecode; one that cannot have any is for its importer to complain of."""
    waits = """
import sys, time
sys.dont_write_bytecode = False
from django.core import management
def _wait(*_, **__):
    while not list(BASE_DIR.glob("gunicorn/app/__pycache__/wsgiapp.*.pyc")):
        time.sleep(0.01)
management.call_command = _wait
"""
    server = {"gunicorn/__init__.py": "", "gunicorn/app/base.py": "it's not Python", "gunicorn/app/wsgiapp.py": "1 / 0"}
    release = made(site, BESIDE + waits, **server)
    assert site.start(*release, None)["notes"] == [""]


def test_an_application_that_looks_at_static_files(site: Site) -> None:
    """It is imported while they come and go, and once more when they are all there."""
    waits = """
import time
from django.core import management
_real = management.call_command
def _wait(*words, **more):
    while not (BASE_DIR / "tried").exists():
        time.sleep(0.01)
    return _real(*words, **more)
management.call_command = _wait
"""
    application = """
from django.conf import settings
with open(settings.BASE_DIR / "tried", "a") as file:
    file.write("x")
(settings.STATIC_ROOT / "app.js").stat()
application = "it"
"""
    release = made(site, BESIDE + waits, **{"blog/wsgi.py": application})
    site.start(*release, None, app="blog.wsgi")
    assert (release[0] / "tried").read_text() == "xx"


def test_the_project_is_told_of_the_end(site: Site) -> None:
    """What it has registered for the end of the process."""
    told = 'import atexit\natexit.register(lambda: (BASE_DIR / "ended").write_text("well"))\n'
    release = made(site, told)
    site.start(*release, None)
    assert (release[0] / "ended").read_text() == "well"


@pytest.mark.parametrize("why", ALONE)
def test_alone(site: Site, why: str) -> None:
    """Where a copy of the process may fail, or would be seen outside of the release, the checks come first."""
    release = made(site, ALONE[why] + TOLD.format(wait=False))
    site.start(*release, None, check="ERROR")
    assert len(processes(release[0])) == 1


@pytest.mark.parametrize("way", [BESIDE, ALONE["one processor"]], ids=["beside", "alone"])
def test_what_fails_is_told_as_before(site: Site, way: str) -> None:
    """The words of collectstatic, and exit status 1."""
    release = made(site, way, **{"assets/more.css": 'a { background: url("it\'s-not-there.png") }'})
    process = site.begin(*release, None)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "collectstatic failed: ValueError: The file 'it's-not-there.png' could not be found" in output
    assert output.count("collectstatic failed") == 1


def test_the_checks_say_no(site: Site) -> None:
    """Nobody goes on in a release that will be removed."""
    release = made(site, BESIDE + TOLD.format(wait=True) + WRONG)
    process = site.begin(*release, None, check="ERROR")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "it's wrong" in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_kill_9(site: Site) -> None:
    """Whoever collects ends with whoever has begun it."""
    release = made(site, BESIDE + TOLD.format(wait=True))
    process = site.begin(*release, None)
    until = time.monotonic() + 30
    while not (release[0] / "collects").exists() and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=30)
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("it goes on")


def test_one_that_is_killed(site: Site) -> None:
    """That is said in words: a kernel without memory does it."""
    release = made(site, BESIDE + TOLD.format(wait=True))
    process = site.begin(*release, None)
    until = time.monotonic() + 30
    while not (release[0] / "collects").exists() or not (release[0] / "collects").read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(int((release[0] / "collects").read_text()), 9)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "collectstatic was ended by signal 9" in output


def test_the_address_of_a_file_that_was_taken_over(site: Site) -> None:
    """The manifest that says it was not there yet when Django started."""
    first = made(site, BESIDE)
    answer = site.start(*first, None, static="app.js")
    second = site.release(2, {**FILES, "blog/settings.py": SETTINGS + BESIDE, "posts/models.py": "# more"})
    again = site.start(*second, first[0], static="app.js")
    assert "as in 1-" in again["notes"][0]
    assert again["static_url"] == answer["static_url"] == "/static/app.c4ca4238a0b9.js"


def test_the_address_of_a_file_without_the_app(site: Site) -> None:
    """Django then asks no storage; one that cannot even be made is none of its business."""
    without = 'INSTALLED_APPS = ["posts"]\nSTORAGES = {"staticfiles": {"BACKEND": "posts.nowhere.It"}}\n'
    release = made(site, without)
    assert site.start(*release, None, static="app.js")["static_url"] == "/static/app.js"
