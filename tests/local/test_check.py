"""A check before the first deploy and after it: what it finds, what it costs, and that it leaves no trace."""

from __future__ import annotations

import fcntl
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.local.sample import make_project
from tests.local.stage import Stage, Tools, listing

#: They tell one story in their order.
pytestmark = pytest.mark.xdist_group("check")
CANARY = "canary-5up3r-53cr3t"
LOOKED_AT = (
    *(
        "ssh",
        "account",
        "sudo",
        "clock",
        "tools",
        "python",
        "uv",
        "manager",
        "disk",
        "inodes",
        "memory",
        "ports",
        "shared",
    ),
    *("release", "lock", "releases", "journal", "config", "programs", "database", "django", "repository", "deploy"),
)
STRICT = """
MIDDLEWARE += ["django.middleware.csrf.CsrfViewMiddleware", "django.middleware.clickjacking.XFrameOptionsMiddleware"]
SECURE_SSL_REDIRECT, SECURE_HSTS_SECONDS, SECURE_HSTS_INCLUDE_SUBDOMAINS, SECURE_HSTS_PRELOAD = False, 300, True, True
CSRF_COOKIE_SECURE = True
SILENCED_SYSTEM_CHECKS = ["security.W008"]
"""


@pytest.fixture(scope="module")
def served(tools: Tools) -> Iterator[Stage]:
    """A site that serves, and whose settings Django finds nothing to say of."""
    stage = Stage(tools, root="my shop")
    try:
        files = make_project()
        settings = next(name for name in files if name.endswith("settings.py"))
        stage.repository.commit({**files, settings: files[settings] + STRICT})
        stage.configure(
            django={"collectstatic": "never"}, environment={"DATABASE_URL": "postgres://ann:it@127.0.0.1:9/shop"}
        )
        yield stage
    finally:
        stage.close()


def findings(stage: Stage, *words: str, code: int = 0) -> dict[str, list[dict[str, str]]]:
    """What a check finds, by subject; its standard output is one object."""
    run = stage.fab("check", "--json", *words, code=code)
    assert run.err == ""
    (host,) = json.loads(run.out)["hosts"].values()
    found: dict[str, list[dict[str, str]]] = {}
    for each in host["findings"]:
        found.setdefault(each["subject"], []).append(each)
    return found


def bad(stage: Stage, *words: str, code: int = 0) -> dict[str, dict[str, str]]:
    """The warnings and errors, by subject."""
    return {
        subject: each
        for subject, those in findings(stage, *words, code=code).items()
        for each in those
        if each["severity"] in ("warning", "error")
    }


def test_before_the_first_deploy(served: Stage) -> None:
    """Nothing is there, and nothing is made; a database that the settings name is connected to."""
    found = bad(served, code=1)
    assert list(found) == ["database"]
    assert found["database"]["text"] == "nothing takes connections at 127.0.0.1:9: Connection refused"
    assert not served.root.exists()
    served.configure(environment=None)
    text = served.fab("check").out
    assert f"ok       shared: {served.root} is made by the first deploy\n" in text
    assert "note     commit: main is " in text
    assert text.splitlines()[-1] == "0 errors, 0 warnings: a deploy of main can begin"


def test_a_site_in_order(served: Stage) -> None:
    """One login and two sessions; every file, folder and time of change is what it was, and nothing is locked."""
    served.deploy()
    assert served.get().status == 200
    before = listing(served.root), listing(served.home, but=(served.root.name,))
    sessions, logins = len(served.server.sessions), served.server.connections
    found = findings(served)
    assert len(served.server.sessions) - sessions == 2
    assert served.server.connections - logins == 1
    assert (listing(served.root), listing(served.home, but=(served.root.name,))) == before
    assert {
        subject: {each["severity"] for each in those} for subject, those in found.items() if subject != "system"
    } == {subject: {"ok"} for subject in LOOKED_AT}
    assert found["database"][0]["text"].endswith("can be written")
    # It reads only, so a dry run is the same.
    assert served.fab("--dry", "check").last == "0 errors, 0 warnings: a deploy of main can begin"


def test_what_was_changed_by_hand(served: Stage) -> None:
    """Each with what mends it, and mended by that."""
    env = served.root / "shared/.env"
    env.write_text(f"SHOP_GREETING='{CANARY}'\n")
    note = findings(served)["config"][0]
    assert (note["severity"], note["text"]) == (
        "note",
        f"settings, or the host's Python, have changed since {served.current} was made",
    )
    operators(served, note["cure"])
    old = served.current
    env.chmod(0o644)
    (served.release / "notes/edition.py").write_text("EDITION = 'mine'\n")
    run = served.private / "run"
    run.write_text(run.read_text() + "# it's mine\n")
    conf = next(served.root.glob("supervisor/conf.d/*.conf"))
    conf.write_text(conf.read_text().replace("stopsignal=TERM", "stopsignal=INT"))
    found = bad(served, "--strict", code=1)
    assert sorted(found) == ["config", "programs", "release", "secrets"]
    assert "\n-# it's mine\n" in found["config"]["text"] + "\n"
    assert "\n-stopsignal=INT\n+stopsignal=TERM\n" in found["programs"]["text"]
    assert found["release"]["text"] == f"files of {old} were changed by hand:\nnotes/edition.py"

    by_hand(found["secrets"]["cure"])
    by_hand(found["release"]["cure"].splitlines()[0])
    operators(served, found["programs"]["cure"])
    assert sorted(bad(served)) == ["config"]
    operators(served, found["config"]["cure"])
    assert served.current != old
    assert bad(served, "--strict") == {}
    assert CANARY not in "".join(served.outputs)


def by_hand(cure: str) -> None:
    """Type a cure on the host."""
    command = cure.partition(": ")[2]
    assert cure.startswith("on the host, as ")
    subprocess.run(["sh", "-ec", command], check=True)


def operators(stage: Stage, cure: str) -> None:
    """Type a cure on the operator's side."""
    fab, at, _, *words = cure.split()
    assert (fab, at) == ("fab", "-H")
    stage.fab(*words)


def test_a_setting_that_is_missing(served: Stage) -> None:
    """As the settings read it, in the release that serves."""
    settings = served.release / "shop/settings.py"
    text = settings.read_text()
    settings.write_text(text + 'SHOP_KEY = os.environ["SHOP_KEY"]\n')
    try:
        found = bad(served, code=1)
        assert (
            found["settings"]["text"].splitlines()[0]
            == "the settings read SHOP_KEY from the environment, where it is not set"
        )
        assert found["settings"]["cure"].splitlines()[0].endswith(" env.set SHOP_KEY")
    finally:
        settings.write_text(text)


def test_while_somebody_deploys(served: Stage) -> None:
    """It is said who, and the lock is not touched: whoever waits for it gets it."""
    lock = served.root / "run/lock"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        found = bad(served, code=1)
    assert list(found) == ["lock"]
    assert found["lock"]["text"].startswith("another deployment is running: ")


def test_all_that_stands_in_the_way(served: Stage) -> None:
    """Of a commit that cannot be deployed, every fault."""
    repository = served.repository
    branch = repository.branch("it/s-bad", {".gitattributes": "*.png filter=lfs\n", "manage.py": None})
    served.fab("git.fetch")
    run = served.fab("check", "--commit", "it/s-bad", code=1)
    assert branch
    assert [line for line in run.out.splitlines() if line.startswith("error")] == [
        "error    commit: the commit has files in git LFS, of which a release would only get pointers",
        "error    commit: the commit has no manage.py",
    ]
    assert run.last == "2 errors, 0 warnings: commit"
    run = served.fab("check", "--commit", "it/s-gone", code=1)
    assert run.last == "1 error, 0 warnings: commit"
    assert "the repository has no branch, tag or commit it/s-gone" in run.out


def test_a_repository_and_a_host_that_are_away(served: Stage) -> None:
    """Each is a finding; the rest is looked at all the same."""
    served.configure(repository=str(served.base / "it's nowhere"))
    found = bad(served, code=1)
    assert list(found) == ["repository"]
    served.configure(repository=str(served.repository.path))
    with_two: dict[str, Any] = {
        "hosts": {"127.0.0.1": {"ssh": {"port": served.server.port}}, "127.0.0.2": {"ssh": {"port": 9}}}
    }
    served.configure(**with_two)
    answer = json.loads(served.fab("check", "--json", code=1, host=False).out)
    assert [each["severity"] for each in answer["hosts"]["127.0.0.2"]["findings"]] == ["error"]
    assert answer["hosts"]["127.0.0.2"]["findings"][0]["subject"] == "ssh"
    assert (answer["errors"], answer["warnings"]) == (1, 0)
    text = served.fab("check", code=1, host=False).out
    assert "\n[127.0.0.2] error    ssh: cannot connect to 127.0.0.2 port 9: Connection refused\n" in text
    assert "\n[127.0.0.1] ok       deploy: a deploy of main " in text
    assert text.splitlines()[-1] == "1 error, 0 warnings: 127.0.0.2 ssh"
