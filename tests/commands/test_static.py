"""The store of static files, run on folders as a deploy leaves them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from fabdjango.body import render_body
from fabdjango.commands import static
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from fabdjango.plan import OWNER
from tests.conftest import LAYOUT, sample_settings

DAY = 86400
OLD, NEW, NEWEST = "1-aaaaaaaaaaaa", "2-bbbbbbbbbbbb", "3-cccccccccccc"


class Site:
    """A site's folder with a space and a quote in its name."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "it's here"
        self.store = self.root / "shared" / "static"
        self.store.mkdir(parents=True)

    def collect(self, release: str, files: Iterable[str], *, manifest: bool = True, root: Path | None = None) -> Path:
        """A release with its static files; a name with a 12 digit hash stands in the manifest if there is one."""
        private = self.root / "releases" / release / ".fabdjango"
        private.mkdir(parents=True, mode=0o750, exist_ok=True)
        target = root or private.parent / "static root"
        for name in files:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_text(f"{name} of {release}")
        if manifest:
            paths = {f"source {name}": name for name in files if "0123456789" in name} | {"plain.css": "plain.css"}
            (target / "staticfiles.json").write_text(json.dumps({"version": "1.1", "paths": paths}))
        (private / "django.json").write_text(json.dumps({"static_root": str(target)}))
        return target

    def keep(self, release: str, outgoing: str = "", days: int = 14, *, code: int = 0, **more: Any) -> str:
        """Run the step on this machine; what it says."""
        settings = sample_settings(django={"static_days": days}, **more)
        step = static.keep(settings, Layout(PurePosixPath(self.root), "blog"), release, outgoing)
        body = f"set -e\n{render_body(step, 'R1')}"
        done = subprocess.run(["sh", "-c", body], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (code, "")
        return done.stdout

    def stored(self) -> list[str]:
        """The files in the store."""
        return names(self.store)

    def age(self, name: str, days: int) -> None:
        """Let a stored file have been served for the last time so many days ago."""
        place = self.store.parent / ".static-ages.json"
        ages: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {"at": 0, "left": {}}
        ages["left"][name] = time.time() - days * DAY
        place.write_text(json.dumps(ages))


def names(folder: Path) -> list[str]:
    """The files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site without a release."""
    return Site(tmp_path)


def test_the_step() -> None:
    """It runs as the owner; paths are data, and never on a command line."""
    step = static.keep(sample_settings(django={"static_days": 3}), LAYOUT, NEW, OLD)
    assert (step.name, step.user, render_body(step, shown=True)) == (
        "static",
        OWNER,
        "python3 -I -S - # Keep static files of earlier releases reachable, and name the folder of this release's.",
    )
    assert step.parameters == {
        "store": "/srv/it's here/shared/static",
        "incoming": f"/srv/it's here/releases/{NEW}",
        "outgoing": f"/srv/it's here/releases/{OLD}",
        "days": 3,
    }
    assert static.keep(sample_settings(), LAYOUT, NEW).parameters["outgoing"] == ""


def test_only_hashed_files_are_kept_and_the_release_names_its_folder(site: Site) -> None:
    """Files that keep their name from release to release would be served stale; compressed ones go along."""
    target = site.collect(OLD, ["css/it's.0123456789ab.css", "css/it's.0123456789ab.css.gz", "plain.css", "a.1111.js"])
    private = target.parent / ".fabdjango"
    assert site.keep(OLD).startswith("5 static files, 2 with a hash in their name, 2 new in the store;")
    assert site.stored() == ["css/it's.0123456789ab.css", "css/it's.0123456789ab.css.gz"]
    assert (private / "static").resolve() == target
    assert private.stat().st_mode & 0o777 == 0o751
    assert not list((site.root / "shared").glob(".fabdjango*"))


def test_what_bundlers_and_compressors_write_is_in_no_manifest(site: Site) -> None:
    """Its name tells; a word is no hash, nor is a date."""
    made = ["CACHE/css/output.875200f13250.css", "vite/main-DPg06nLa.js", "vite/vue-BuVkKHLs.js.map"]
    site.collect(OLD, [*made, "js/bootstrap-datepick.js", "report-20240101.pdf", "a.0123456789aa.css"])
    site.keep(OLD)
    assert site.stored() == sorted([*made, "a.0123456789aa.css"])
    site.collect(NEW, ["a.0123456789aa.css"])
    site.keep(NEW, OLD)
    for name in made:
        site.age(name, 15)
    site.collect(NEWEST, ["a.0123456789aa.css"])
    site.keep(NEWEST, NEW)
    assert site.stored() == ["a.0123456789aa.css"]


def test_without_a_manifest_the_name_tells(site: Site) -> None:
    """A hash is 8 to 32 hexadecimal digits before the extension; a date is none."""
    hashed = ["app.0a1b2c3d.js", "app.0a1b2c3d.js.map", "x/y.0123456789abcdef0123456789abcdef.svg"]
    site.collect(
        OLD, [*hashed, "report.20240101.pdf", "app.0a1b2c.js", "0a1b2c3d", "jquery-3.7.1.min.js"], manifest=False
    )
    site.keep(OLD)
    assert site.stored() == hashed


def test_pages_of_the_release_before_find_their_files(site: Site) -> None:
    """The new release gets them by link too, for WhiteNoise; its own files and its manifest stay as they are."""
    site.collect(OLD, ["a.0123456789aa.css", "b.0123456789ab.css"])
    target = site.collect(NEW, ["b.0123456789ab.css", "c.0123456789ac.css"])
    manifest = (target / "staticfiles.json").read_text()
    site.keep(NEW, OLD)
    assert site.stored() == ["a.0123456789aa.css", "b.0123456789ab.css", "c.0123456789ac.css"]
    assert (target / "a.0123456789aa.css").read_text() == f"a.0123456789aa.css of {OLD}"
    assert (target / "a.0123456789aa.css").samefile(site.store / "a.0123456789aa.css")
    assert (target / "b.0123456789ab.css").read_text() == f"b.0123456789ab.css of {NEW}"
    assert (target / "staticfiles.json").read_text() == manifest


def test_a_stored_file_is_never_overwritten(site: Site) -> None:
    """Hashed names do not collide; what has been served under one stays so."""
    (site.store / "a.0123456789aa.css").write_text("first")
    site.collect(OLD, ["a.0123456789aa.css"])
    site.keep(OLD)
    assert (site.store / "a.0123456789aa.css").read_text() == "first"


@pytest.mark.parametrize("manifest", [True, False])
def test_files_age_from_when_they_were_last_served(site: Site, *, manifest: bool) -> None:
    """What came from the store by a link does not count as the release's own, or it would never go."""
    site.collect(OLD, ["x/a.0123456789aa.css"], manifest=manifest)
    site.keep(OLD)
    site.age("x/a.0123456789aa.css", 20)
    site.collect(NEW, ["b.0123456789ab.css"], manifest=manifest)
    site.keep(NEW, OLD)
    assert site.stored() == ["b.0123456789ab.css", "x/a.0123456789aa.css"]
    site.age("x/a.0123456789aa.css", 13)
    target = site.collect(NEWEST, ["b.0123456789ab.css"], manifest=manifest)
    site.keep(NEWEST, NEW)
    assert (target / "x/a.0123456789aa.css").exists()
    site.age("x/a.0123456789aa.css", 15)
    site.keep(NEWEST, NEW)
    assert site.stored() == ["b.0123456789ab.css"]
    assert not (site.store / "x").exists()


def test_a_store_of_a_version_that_went_by_dates(site: Site) -> None:
    """Until there is a list, the date of a stored file tells when it was last served."""
    for name, days in (("a.0123456789aa.css", 15), ("b.0123456789ab.css", 13)):
        (site.store / name).write_text("stored")
        os.utime(site.store / name, (time.time() - days * DAY,) * 2)
    site.collect(OLD, ["plain.css"])
    site.keep(OLD)
    assert site.stored() == ["b.0123456789ab.css"]
    site.collect(NEW, ["plain.css"])
    site.keep(NEW, OLD, days=12)
    assert site.stored() == []


def test_the_store_takes_no_room_of_its_own(site: Site) -> None:
    """Files have a second name there, and keep their date: by it a release's static files are known to be as they were."""
    target = site.collect(OLD, ["a.0123456789aa.css", "b.0123456789ab.css"])
    (target / "b.0123456789ab.css").chmod(0o600)
    os.utime(target / "a.0123456789aa.css", (1, 1))
    site.keep(OLD)
    for name in site.stored():
        assert (site.store / name).samefile(target / name)
        assert (site.store / name).stat().st_mode & 0o777 == 0o644
    site.collect(NEW, ["c.0123456789ac.css"])
    site.keep(NEW, OLD)
    assert (target / "a.0123456789aa.css").stat().st_mtime == 1


def test_files_that_cannot_have_two_names_are_copied(site: Site) -> None:
    """Those behind a link, and all of them if the store is on a file system of its own."""
    target = site.collect(OLD, ["plain.css"])
    (target / "a.0123456789aa.css").symlink_to("plain.css")
    site.keep(OLD)
    assert not (site.store / "a.0123456789aa.css").is_symlink()
    assert (site.store / "a.0123456789aa.css").read_text() == f"plain.css of {OLD}"
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        assert Path(elsewhere).stat().st_dev != target.stat().st_dev
        shutil.rmtree(site.root / "shared")
        (site.root / "shared").symlink_to(elsewhere)
        site.collect(NEW, ["x/b.0123456789ab.css"])
        assert "1 new in the store" in site.keep(NEW, OLD)
        assert site.stored() == ["a.0123456789aa.css", "x/b.0123456789ab.css"]
        assert (site.store / "x/b.0123456789ab.css").read_text() == f"x/b.0123456789ab.css of {NEW}"
        assert not list((site.root / "shared").glob(".fabdjango*"))


def test_a_second_run_changes_nothing(site: Site) -> None:
    """A step may be repeated; a dead one's leavings are cleared."""
    site.collect(OLD, ["a.0123456789aa.css"])
    target = site.collect(NEW, ["b.0123456789ab.css"])
    site.keep(NEW, OLD)
    before = names(target), site.stored()
    (site.root / "shared" / ".fabdjango.static").mkdir()
    assert ", 0 new in the store; 0 of earlier releases stay reachable, 0 are gone" in site.keep(NEW, OLD)
    assert (names(target), site.stored()) == before
    assert not (site.root / "shared" / ".fabdjango.static").exists()


def test_without_static_root_there_is_nothing_to_do(site: Site) -> None:
    """A project may have no static files."""
    site.collect(OLD, [], manifest=False)
    (site.root / "releases" / OLD / ".fabdjango" / "django.json").write_text('{"static_root": ""}')
    assert site.keep(OLD) == "no static files were collected\n"
    assert not (site.root / "releases" / OLD / ".fabdjango" / "static").exists()


def test_a_static_root_that_releases_share(site: Site, tmp_path: Path) -> None:
    """It is used as it is; with a manifest in it, the running release would read the new one's."""
    outside = site.collect(OLD, ["a.0123456789aa.css"], manifest=False, root=tmp_path / "outside")
    assert site.keep(OLD) == f"{outside} is outside of the release and used as it is\n"
    assert (site.root / "releases" / OLD / ".fabdjango" / "static").resolve() == outside
    assert site.stored() == []
    site.collect(NEW, ["a.0123456789aa.css"], root=outside)
    said = site.keep(NEW, OLD, code=1)
    assert said.startswith(f"STATIC_ROOT is {outside}, outside of the release, and has a manifest in it")
    assert 'cure: set STATIC_ROOT = BASE_DIR / "static" in the settings' in said


def test_a_shared_path_in_the_store_is_refused() -> None:
    """The store throws away what is old."""
    with pytest.raises(ConfigError, match="static/it's mine would lie in /srv/it's here/shared/static"):
        static.keep(sample_settings(shared=["static/it's mine"]), LAYOUT, NEW)


def test_a_folder_of_that_name_that_the_project_shares_is_its_own(site: Site) -> None:
    """Nothing in it ages; the release has its link all the same."""
    (site.store / "mine.0123456789aa.css").write_text("mine")
    site.age("mine.0123456789aa.css", 20)
    target = site.collect(OLD, ["a.0123456789aa.css"])
    site.keep(OLD, shared=["static/"])
    assert site.stored() == ["mine.0123456789aa.css"]
    assert (site.root / "releases" / OLD / ".fabdjango" / "static").resolve() == target


def test_ten_thousand_files_take_less_than_a_second(site: Site) -> None:
    """Nothing is started or read for a single file."""
    files = [f"{number % 50}/f{number}.a{number:011x}.css" for number in range(10_000)]
    target = site.collect(OLD, files, manifest=False)
    site.collect(NEW, [], manifest=False)
    site.store.rmdir()
    shutil.copytree(target, site.store, copy_function=os.link)
    shutil.copytree(target, site.root / "releases" / NEW / "static root", copy_function=os.link)
    began = time.process_time(), os.times().children_user + os.times().children_system
    assert "10000 with a hash in their name, 0 new in the store" in site.keep(NEW, OLD)
    used = time.process_time() - began[0] + os.times().children_user + os.times().children_system - began[1]
    assert used < 1, sys.version
