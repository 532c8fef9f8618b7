"""Deploys that fail: exit code, words, the way out, and a server on which nothing is left half-done."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from tests.local.sample import make_project
from tests.local.stage import Run, Stage, Tools, listing, processes_below

UNTOUCHED = " state: nothing that serves was touched (exit 1)"
REVERTED = " state: reverted: the previous release serves again, and was asked (exit 3)"


@pytest.fixture(scope="module")
def served(tools: Tools) -> Iterator[Stage]:
    """A site that serves; each test fails to deploy another branch to it, and must leave it as it was."""
    stage = Stage(tools)
    try:
        stage.repository.commit(make_project())
        stage.configure(health={"timeout": 8}, django={"collectstatic": "never"})
        stage.deploy()
        yield stage
    finally:
        stage.close()


def fail_before(stage: Stage, *words: str) -> Run:
    """A deploy that ends before anything that serves is touched: the server is as before but for the mirror."""
    before = listing(stage.root, but=("repo.git",), times=False)
    pids = set(processes_below(stage.private))
    run = stage.deploy(*words, code=1)
    assert listing(stage.root, but=("repo.git",), times=False) == before
    assert set(processes_below(stage.private)) == pids
    assert stage.get().page["edition"] == "1"
    return run


def fail_in_slot(stage: Stage, branch: str) -> Run:
    """A deploy whose release does not answer in its slot: it never gets a request, and the old one is not touched."""
    pids = set(processes_below(stage.private))
    run = fail_after(stage, branch, code=1, result="failed")
    assert set(processes_below(stage.private)) == pids
    assert run.err.startswith("Error: health failed")
    assert UNTOUCHED in run.err
    return run


def fail_after(stage: Stage, branch: str, *, code: int = 3, result: str = "reverted") -> Run:
    """A deploy that is reverted: the old release answers, with its settings and its programs' file."""
    old = stage.current
    but = ("repo.git", "releases", "journal.jsonl", "run/sockets")
    before = listing(stage.root, but=but, times=False)
    run = stage.deploy("--commit", branch, code=code)
    assert stage.current == old
    assert listing(stage.root, but=but, times=False) == before
    assert stage.get().page["release"] == old
    assert stage.journal[-1]["result"] == result
    assert stage.journal[-1]["from"] == old
    assert stage.journal[-1]["commit"] == stage.repository.git("rev-parse", branch)
    assert "deployed" not in run.out
    return run


def lines(text: str) -> str:
    """A text block of a test, without its margin."""
    return textwrap.dedent(text).strip("\n")


def test_import_error_in_settings(served: Stage) -> None:
    """The line of the settings that failed stands in the report."""
    repository = served.repository
    repository.branch(
        "bad-import",
        {"shop/settings.py": repository.edit("shop/settings.py", "import os\n", "import os\nimport shoop\n")},
    )
    run = fail_before(served, "--commit", "bad-import")
    assert "check failed" in run.err
    assert "shop/settings.py line 2: import shoop\n" in run.err
    assert (
        "the settings module shop.settings cannot be imported: ModuleNotFoundError: No module named 'shoop'" in run.err
    )
    assert UNTOUCHED in run.err


def test_failing_check(served: Stage) -> None:
    """A finding of manage.py check stops the deploy and is shown."""
    repository = served.repository
    models = repository.edit("notes/models.py", "max_length=100", "max_length=-1")
    repository.branch("bad-check", {"notes/models.py": models})
    run = fail_before(served, "--commit", "bad-check")
    assert "notes.Note.text: (fields.E121) 'max_length' must be a positive integer." in run.err
    assert "manage.py check found 1 of level ERROR or above" in run.err
    assert UNTOUCHED in run.err


def test_failing_migration(served: Stage) -> None:
    """A migration that fails leaves the old release serving; what was applied is said to be possible."""
    migration = """\
        from django.db import migrations


        def stumble(apps, schema_editor):
            raise ValueError("the old rows do not fit")


        class Migration(migrations.Migration):
            dependencies = [("notes", "0001_initial")]
            operations = [migrations.RunPython(stumble)]
        """
    served.repository.branch("bad-migration", {"notes/migrations/0002_more.py": migration})
    # The release is whole, and a later deploy takes it up again, so it stays.
    old = served.current
    but = ("repo.git", "releases", "journal.jsonl", "run/migrate.lock")
    before = listing(served.root, but=but, times=False)
    run = served.deploy("--commit", "bad-migration", code=1)
    assert listing(served.root, but=but, times=False) == before
    told = served.journal[-1]
    assert [told[name] for name in ("event", "result", "migrations", "failed")] == [
        "migrate",
        "failed",
        [],
        "notes.0002_more",
    ]
    assert served.get().page["release"] == old == served.current
    assert "  migration notes.0002_more: Raw Python operation" in run.out
    assert "Error: migrate failed" in run.err
    assert "ValueError: the old rows do not fit" in run.err
    assert " state: the site serves what it did before; migrations may have been applied in part (exit 1)" in run.err
    assert "do this: mend the migration, then deploy again" in run.err


def test_program_that_dies_after_its_start(served: Stage) -> None:
    """What only fails in the web process is found in its slot, and its log is in the report."""
    wsgi = served.repository.edit(
        "shop/wsgi.py",
        "application = ",
        'import sys\nif "gunicorn" in sys.argv[0]:\n    raise RuntimeError("no web today")\napplication = ',
    )
    served.repository.branch("dies", {"shop/wsgi.py": wsgi})
    run = fail_in_slot(served, "dies")
    assert "the end of the program's log:" in run.err
    assert "RuntimeError: no web today" in run.err


def test_a_worker_that_dies(served: Stage) -> None:
    """Every program has to stay up, not the web process alone; the file for supervisor is put back too."""
    served.repository.branch("dead-worker", {})
    served.configure(processes={"worker": {"command": "echo nothing to work on; exit 3", "startsecs": 1}})
    try:
        run = fail_after(served, "dead-worker")
    finally:
        served.configure(processes=None)
    assert "shop-worker does not stay up" in run.err
    assert "nothing to work on" in run.err
    assert REVERTED in run.err
    assert "shop-worker" not in (served.root / "supervisor/conf.d/shop.conf").read_text()


@pytest.mark.parametrize(
    ("branch", "old", "new", "why", "cure"),
    [
        (
            "answers-400",
            'ALLOWED_HOSTS = ["shop.example.com", "localhost"]',
            "ALLOWED_HOSTS = []",
            "the site answers 400 Bad Request to the host name 'localhost'",
            "add it to ALLOWED_HOSTS in the settings, or set fabdjango.health.host to a name that is there",
        ),
        (
            "answers-500",
            'ROOT_URLCONF = "shop.urls"',
            'ROOT_URLCONF = "shop.urls"\nMIDDLEWARE += ["shop.broken.Middleware"]',
            "/ answers 500, not 200",
            "see the program's log, or set fabdjango.health",
        ),
    ],
)
def test_unhealthy(served: Stage, branch: str, old: str, new: str, why: str, cure: str) -> None:
    """A release that answers, but not well, gets no visitor."""
    repository = served.repository
    broken = "class Middleware:\n    def __init__(self, get): pass\n    def __call__(self, request): raise ValueError('so broken')\n"
    repository.branch(
        branch, {"shop/settings.py": repository.edit("shop/settings.py", old, new), "shop/broken.py": broken}
    )
    run = fail_in_slot(served, branch)
    assert f"| {why}\n" in run.err
    assert f" do this: {cure}\n" in run.err
    if "500" in branch:
        assert "ValueError: so broken" in run.err


def test_no_answer(served: Stage) -> None:
    """A release that accepts a request and never answers is given up when the time is over."""
    wsgi = served.repository.edit("shop/wsgi.py", "application = ", "import time\nslow = ") + textwrap.dedent(
        """\


        def application(environ, start_response):
            time.sleep(60)
            return slow(environ, start_response)
        """
    )
    served.repository.branch("silent", {"shop/wsgi.py": wsgi})
    served.configure(gunicorn={"graceful_timeout": 1})
    try:
        run = fail_in_slot(served, "silent")
    finally:
        served.configure(gunicorn={"graceful_timeout": 5})
    assert "timed out" in run.err


def test_first_deploy_that_fails_leaves_nothing(stage: Stage) -> None:
    """On a host without a release, a failure leaves no current, no program and no half release."""
    files = make_project()
    files["shop/wsgi.py"] += "raise SystemExit(4)\n"
    stage.repository.commit(files)
    run = stage.deploy(code=1)
    assert "the application shop.wsgi:application cannot be imported" in run.err
    assert not list((stage.root / "releases").iterdir())
    assert not list((stage.root / "venvs").iterdir())
    stage.repository.commit({"shop/wsgi.py": make_project()["shop/wsgi.py"]})
    stage.configure(health={"path": "/nowhere", "timeout": 5})
    run = stage.deploy(code=1)
    assert "/nowhere answers 404, not 200" in run.err
    assert " state: nothing serves, as before; migrations were applied (exit 1)" in run.err
    assert not stage.current
    assert not (stage.root / "current").is_symlink()
    assert not (stage.root / "supervisor/conf.d/shop.conf").exists()
    assert not stage.listens()
    # And the next one needs no clearing up.
    stage.configure(health={"path": "/", "timeout": 20})
    stage.deploy()
    assert stage.get().page["release"] == stage.current


def test_submodule_is_refused(served: Stage) -> None:
    """A release would silently lack its files."""
    repository = served.repository
    repository.git("checkout", "--quiet", "-b", "sub", "main")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{repository.git('rev-parse', 'main')},vendor/lib")
    repository.git("commit", "--quiet", "--message", "Add a submodule")
    repository.git("checkout", "--quiet", "main")
    run = fail_before(served, "--commit", "sub")
    assert "Error: the commit has submodules (vendor/lib), which a release would silently lack\n" in run.err
    assert " do this: vendor them, or list them as requirements (git+https://…@commit)\n" in run.err


@pytest.mark.parametrize("ref", ["--upload-pack=touch pwned", "a b", "main..dev", "-x"])
def test_ref_that_is_no_name(served: Stage, ref: str) -> None:
    """What git would take for an option or a range is refused before any host is asked."""
    connections = served.server.connections
    run = served.fab("deploy", f"--commit={ref}", code=1)
    assert f"Error: {ref!r} is not a branch, a tag or a commit\n" in run.err
    assert " do this: give a name as git branch, git tag or git log show it\n" in run.err
    assert served.server.connections == connections


def test_ref_that_is_not_there(served: Stage) -> None:
    """Names that look alike are offered."""
    served.repository.git("branch", "feature/price-tags", "main")
    run = fail_before(served, "--commit", "feature/pricetags")
    assert "Error: the repository has no branch, tag or commit feature/pricetags\n" in run.err
    assert " do this: did you mean feature/price-tags?\n" in run.err


def test_requirement_that_does_not_install(served: Stage) -> None:
    """The installer's own words and what to look at; no virtualenv is left."""
    served.repository.branch("bad-requirement", {"requirements.txt": "no-such-package-of-ours==1.2.3\n"})
    served.configure(venv={"no_index": True, "packages": []})
    try:
        run = fail_before(served, "--commit", "bad-requirement")
    finally:
        served.configure(venv=None)
    assert "no-such-package-of-ours" in run.err.partition(" output:")[2].partition(" state:")[0]
    assert " do this: a package or version cannot be found:" in run.err
    assert UNTOUCHED in run.err


def test_missing_file_of_requirements(served: Stage) -> None:
    """A -r line that names nothing is found before anything is made."""
    served.repository.branch("missing-file", {"requirements.txt": "-r more/base.txt\n"})
    run = fail_before(served, "--commit", "missing-file")
    assert "Error: the commit has no file more/base.txt, which the requirements name\n" in run.err


def test_template_with_an_undefined_name(served: Stage) -> None:
    """The template and its line are named, and no host is asked."""
    served.write("deploy/local.py.j2", "PRICE = 1\nCOST = {{ coost }}\n")
    served.configure(local_settings="deploy/local.py.j2")
    connections = served.server.connections
    try:
        run = served.fab("deploy", code=1)
    finally:
        served.configure(local_settings=None)
    assert "the template deploy/local.py.j2 line 2 uses a name that is not defined: 'coost' is undefined\n" in run.err
    assert " state: no host was contacted (exit 1)\n" in run.err
    assert served.server.connections == connections


def test_unset_variable_in_a_template(served: Stage) -> None:
    """A secret that the operator forgot is named before any host is asked."""
    served.write("deploy/local.py.j2", "KEY = {{ env.SHOP_KEY | python }}\n")
    served.configure(local_settings="deploy/local.py.j2")
    try:
        run = served.fab("deploy", code=1)
    finally:
        served.configure(local_settings=None)
    assert "deploy/local.py.j2 line 1 needs the environment variable SHOP_KEY, which is not set" in run.err
    assert " do this: SHOP_KEY='…' fab …\n" in run.err


def test_unknown_key(served: Stage) -> None:
    """A misspelt setting is refused with its file, and the right one is offered."""
    served.configure(gunicorn={"workerss": 2})
    connections = served.server.connections
    try:
        run = served.fab("deploy", code=1)
    finally:
        del served.settings["gunicorn"]["workerss"]
        served.configure()
    assert "Error: fabdjango.gunicorn.workerss is not a setting (in fabric.yaml)\n" in run.err
    assert " do this: did you mean workers or worker_class?\n" in run.err or " do this: did you mean workers" in run.err
    assert served.server.connections == connections


def test_missing_key(served: Stage) -> None:
    """The error says which setting, and three ways to give it."""
    repository = served.settings["repository"]
    served.configure(repository=None)
    try:
        run = served.fab("deploy", code=1)
    finally:
        served.configure(repository=repository)
    assert "Error: fabdjango.repository is not set: what git clones from, as seen from the host\n" in run.err.replace(
        "host.\n", "host\n"
    )
    assert "FABRIC_FABDJANGO_REPOSITORY='git@example.com:team/blog.git'" in run.err
    assert "fabdjango.site(" in run.err


def test_no_host(served: Stage) -> None:
    """Without -H and without an inventory, nothing runs on the operator's machine."""
    run = served.fab("deploy", code=1, host=False)
    assert run.err.startswith("Error: no host is given\n")
    assert " do this: name one:               fab -H web1.example.com …\n" in run.err


def test_unknown_host_key(served: Stage) -> None:
    """A host that known_hosts does not list is not talked to."""
    other = served.write("known_hosts", "")
    known = served.settings["ssh"]["known_hosts"]
    served.configure(ssh={"known_hosts": str(other)})
    sessions = len(served.server.sessions)
    try:
        run = served.fab("deploy", code=1)
    finally:
        served.configure(ssh={"known_hosts": known})
    assert f"the host key of [127.0.0.1]:{served.server.port} is not known" in run.err
    assert len(served.server.sessions) == sessions
