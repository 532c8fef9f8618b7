"""manage.py, settings files, and the one start of Django."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from fabdjango import onhost
from fabdjango.commands import django
from fabdjango.exceptions import ConfigError
from tests.conftest import LAYOUT, RELEASE, sample_settings, shell, shown


def test_manage() -> None:
    """Words are split as a shell would, quoted again, and expanded by nobody; a folder of manage.py is the working directory already."""
    settings = sample_settings(django={"manage": "it's src/manage.py", "timeout": 60})
    assert shown(django.manage(settings, LAYOUT.current, "loaddata 'a b.json' $HOME it\\'s *")) == shell(r"""
        # manage: manage.py loaddata 'a b.json' $HOME it\'s *
        [ -e '/srv/it'"'"'s here/current/.fabdjango/run' ] || refuse 'there is no such release yet: run deploy, or git.checkout and venv.install'
        timeout -k 10 60 /bin/sh '/srv/it'"'"'s here/current/.fabdjango/run' python manage.py loaddata 'a b.json' '$HOME' 'it'"'"'s' '*'
    """)


ENTRY = {"event": "migrate", "release": RELEASE, "by": "it's ada@laptop"}
IN_RELEASE = """
    [ -e '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/run' ] || refuse 'there is no such release yet: run deploy, or git.checkout and venv.install'
    timeout -k 10 1800 /bin/sh '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/run' python - # """


def test_migrate() -> None:
    """Under a lock, no more than the plan that was shown, and the journal is written by who knows what was applied."""
    step = django.migrate(
        sample_settings(django={"lock_timeout": 5}),
        LAYOUT,
        LAYOUT.release(RELEASE),
        ["posts.0002", "posts.0001"],
        ENTRY,
    )
    assert step.program == onhost.source("migrate")
    assert step.parameters == {
        "action": "migrate",
        "expected": ["posts.0001", "posts.0002"],
        "target_known": [],
        "project": "blog",
        "by": "it's ada@laptop",
        "lock_timeout": 5,
        "lock_file": "/srv/it's here/run/migrate.lock",
        "mark": "/srv/it's here/run/migrate.json",
        "journal": "/srv/it's here/journal.jsonl",
        "entry": ENTRY,
    }
    assert shown(step) == shell(
        "    # migrate: apply migrations"
        + IN_RELEASE
        + "Apply migrations, or reverse those that an older release lacks, under a lock of the database; the last line is JSON."
    )


def test_reverse() -> None:
    """The newer release reverses, down to what the older one knows, and no more than was shown."""
    settings = sample_settings(environment={"A": "it's"})
    step = django.reverse(settings, LAYOUT, LAYOUT.release(RELEASE), ["posts.0001"], ["posts.0002"], ENTRY)
    assert (step.name, step.title) == ("reverse", "reverse migrations")
    assert step.parameters == {
        **django.migrate(settings, LAYOUT, LAYOUT.release(RELEASE), ["posts.0002"], ENTRY).parameters,
        "action": "reverse",
        "target_known": ["posts.0001"],
    }


def test_plan_reversal() -> None:
    """A look only, whose answer is data."""
    step = django.plan_reversal(sample_settings(), LAYOUT.release(RELEASE), ("posts.0002", "it's.0001"))
    assert step.capture
    assert step.program == onhost.source("reverse_plan")
    assert step.parameters == {"target_known": ["it's.0001", "posts.0002"]}
    assert shown(step) == shell(
        "    # plan-reversal: see whether migrations can be reversed"
        + IN_RELEASE
        + "What going back to an older release would do to the database, judged by its data; the answer is one line of JSON."
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("migrate", ["python", "manage.py", "migrate"]),
        ("shell -c 'print(1); x = \"a\"'", ["python", "manage.py", "shell", "-c", 'print(1); x = "a"']),
        ("a $(id) `id` ;b", ["python", "manage.py", "a", "$(id)", "`id`", ";b"]),
        ("a 'line\nbreak'", ["python", "manage.py", "a", "line\nbreak"]),
    ],
)
def test_words(command: str, words: list[str]) -> None:
    """One string to an argv."""
    assert django.manage_words(sample_settings(), command) == words


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("it's", 'cannot split "it\'s" into words: No closing quotation'),
        ("a\\", "cannot split 'a\\\\' into words: No escaped character"),
        ("", "there is no management command to run"),
        (" \n", "there is no management command to run"),
    ],
)
def test_no_words(command: str, message: str) -> None:
    """The cure is an example."""
    with pytest.raises(ConfigError) as caught:
        django.manage_words(sample_settings(), command)
    assert caught.value.message == message
    assert caught.value.cure


def test_start() -> None:
    """Check, migration plan and static files in one start, in the release, with its answer in a file."""
    settings = sample_settings(
        health={"static": "it's/site.css"}, django={"collectstatic": "always", "check_deploy": True}
    )
    step = django.start(
        settings,
        LAYOUT.release(RELEASE),
        "blog.wsgi:application",
        mirror=LAYOUT.mirror,
        commit=40 * "a",
        outgoing=LAYOUT.release("6-abcdefabcdef"),
    )
    assert step.capture
    assert step.program == onhost.source("django_start")
    assert step.parameters == {
        "check": "ERROR",
        "deploy": True,
        "collectstatic": "always",
        "plan": True,
        "mirror": "/srv/it's here/repo.git",
        "commit": 40 * "a",
        "outgoing": "/srv/it's here/releases/6-abcdefabcdef",
        "app": "blog.wsgi:application",
        "static": "it's/site.css",
        "answer": "/srv/it's here/releases/7-0123456789ab/.fabdjango/django.json",
    }
    assert shown(step) == shell("""
        # check: check, migration plan and static files
        timeout -k 10 1800 /bin/sh '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/run' python - # Check, migration plan and collectstatic in one start of Django; the answer is one line of JSON.
    """)


def test_start_without_static_files() -> None:
    """For a look only."""
    settings = sample_settings(django={"collectstatic": "always"}, environment={"A": "it's"})
    step = django.start(settings, LAYOUT.current, "", collectstatic=False, plan=False)
    assert (step.parameters["collectstatic"], step.parameters["plan"]) == ("never", False)


def test_put_settings() -> None:
    """Both files for the next release, readable by owner and group, shown to nobody."""
    step = django.put_settings(LAYOUT, "export A='secret words'", "A = 'ü'")
    assert [(put.mode, put.content) for put in step.puts] == [(0o640, "export A='secret words'"), (0o640, "A = 'ü'")]
    assert "secret words" not in repr(step)
    assert shown(step) == shell("""
        # settings: write .env and local_settings.py for the next release
        replace '/srv/it'"'"'s here/shared/.env' 640 <<'EOF'
        (23 bytes, hidden)
        EOF
        replace '/srv/it'"'"'s here/shared/local_settings.py' 640 <<'EOF'
        (8 bytes, hidden)
        EOF
        [ "$changed_files" ] || unchanged "as before"
    """)


def test_put_one_of_the_settings() -> None:
    """The other is left alone."""
    assert shown(django.put_settings(LAYOUT, None, "A = 'it is'")) == shell("""
        # settings: write local_settings.py for the next release
        replace '/srv/it'"'"'s here/shared/local_settings.py' 640 <<'EOF'
        (11 bytes, hidden)
        EOF
        [ "$changed_files" ] || unchanged "as before"
    """)


def test_directory_of() -> None:
    """Where manage.py is."""
    assert django.directory_of(sample_settings(), LAYOUT.current) == LAYOUT.current
    settings = sample_settings(django={"manage": "it's src/x/manage.py"})
    assert django.directory_of(settings, LAYOUT.current) == LAYOUT.current / "it's src" / "x"


@pytest.mark.parametrize("manage", ["/it's/manage.py", "../it's/manage.py", "a/../../manage.py"])
def test_manage_outside_of_the_commit(manage: str) -> None:
    """A path that leaves the release is refused."""
    with pytest.raises(ConfigError) as caught:
        django.directory_of(sample_settings(django={"manage": manage}), LAYOUT.current)
    assert caught.value.message == f"fabdjango.django.manage must be a path inside the commit, not {manage!r}"


@pytest.mark.parametrize(
    ("values", "module", "target"),
    [
        ({}, "blog.settings", "blog/local_settings.py"),
        ({}, "blog.settings.production", "blog/settings/local_settings.py"),
        ({}, "settings", "local_settings.py"),
        ({"django": {"manage": "it's src/manage.py"}}, "blog.settings", "it's src/blog/local_settings.py"),
        ({"local_settings_path": "it's/private.py"}, "blog.settings", "it's/private.py"),
    ],
)
def test_local_settings_target(values: dict[str, object], module: str, target: str) -> None:
    """Beside the settings module, unless the settings say otherwise."""
    assert django.local_settings_target(sample_settings(values), module) == PurePosixPath(target)


@pytest.mark.parametrize("path", ["/etc/it's.py", "../it's.py", "a/../../it's.py"])
def test_local_settings_outside_of_the_commit(path: str) -> None:
    """A path that leaves the release is refused."""
    with pytest.raises(ConfigError) as caught:
        django.local_settings_target(sample_settings(local_settings_path=path), "blog.settings")
    assert caught.value.message == f"fabdjango.local_settings_path must be a path inside the commit, not {path!r}"
