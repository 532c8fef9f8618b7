"""What is said of what a site has on a host, line by line."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from fabdjango.commands import judge_site
from fabdjango.commands.check import Look, Started
from fabdjango.plan import Put
from tests.commands.told import case, told
from tests.conftest import LAYOUT, RELEASE, SHA, shell

CURRENT: dict[str, Any] = {
    "current": RELEASE,
    "live_slot": "a",
    "slots": {"a": RELEASE},
    "releases": {RELEASE: {"commit": SHA}},
    "journal": ({"time": "2026-01-02T03:04:05Z", "event": "deploy", "release": RELEASE, "by": "it's me", "result": "serves"},),
}  # fmt: skip
ROOT = str(LAYOUT.root)
WRITES = {"is": "folder", "mode": 0o755, "owner": "ada", "writes": True}


def site(look: Look, settings: dict[str, Any] | None = None, **facts: Any) -> str:
    """What is said of the site's folder."""
    return told(judge_site.site(case(look, settings, **facts)))


# --- the site's folder -------------------------------------------------------


def test_before_the_first_deploy() -> None:
    """The folder need not be there, if whoever logs in may make it."""
    missing = {ROOT: {"is": "missing", "writes": False}}
    assert site(Look(places=missing, sudo=("all", ())), root_exists=False) == shell("""
        ok       shared: /srv/it's here is made by the first deploy
        ok       lock: nobody deploys
        ok       releases: none serves, 0 are complete
    """)
    assert site(Look(places=missing, database=("db:5432", "Connection refused")), root_exists=False) == shell("""
        error    shared: /srv/it's here is not there, and ada may not make it
                 do this: on the host, as root: install -d -o ada '/srv/it'"'"'s here'
        error    database: nothing takes connections at db:5432: Connection refused
                 do this: does the server run, and does it listen there? see DATABASE_URL in the site's environment
        ok       lock: nobody deploys
        ok       releases: none serves, 0 are complete
    """)
    assert "ok       database: something takes connections at it's" in site(Look(database=("it's", "")))


def test_a_site_in_order() -> None:
    """A line for everything that was looked at."""
    assert site(Look(places={ROOT: WRITES}, changed=()), **CURRENT) == shell("""
        ok       shared: ada may write /srv/it's here
        ok       release: the files of 7-0123456789ab are those of its commit
        ok       lock: nobody deploys
        ok       releases: 7-0123456789ab serves, 1 are complete
        ok       journal: 2026-01-02T03:04:05Z: deploy of 7-0123456789ab by it's me: serves
    """)


def test_folders_that_may_not_be_written() -> None:
    """Media, which are not for a deploy, is a warning."""
    stolen = {**WRITES, "owner": "root", "writes": False}
    look = Look(places={ROOT: WRITES, f"{ROOT}/releases": stolen, f"{ROOT}/shared/media": stolen}, changed=())
    assert site(look, **CURRENT).startswith(
        shell("""
        error    shared: ada may not write /srv/it's here/releases, which belongs to root
                 do this: on the host, as root: chown -R ada: '/srv/it'"'"'s here/releases'
        warning  shared: ada may not write /srv/it's here/shared/media, which belongs to root
                 do this: on the host, as root: chown -R ada: '/srv/it'"'"'s here/shared/media'
        ok       release: …
        """).rpartition("\n")[0]
    )


def test_secrets_that_everybody_may_read() -> None:
    """By their owner's own hand, or root's."""
    read = {"is": "file", "mode": 0o644, "owner": "ada", "writes": True}
    places = {f"{ROOT}/shared/.env": read, f"{ROOT}/shared/generated.env": {**read, "owner": "root"}}
    places[f"{ROOT}/shared/local_settings.py"] = {**read, "mode": 0o640}
    assert site(Look(places=places)).splitlines()[1:5] == [
        "warning  secrets: every account of the host may read /srv/it's here/shared/.env",
        """         do this: on the host, as ada: chmod o= '/srv/it'"'"'s here/shared/.env'""",
        "warning  secrets: every account of the host may read /srv/it's here/shared/generated.env",
        """         do this: on the host, as root: chmod o= '/srv/it'"'"'s here/shared/generated.env'""",
    ]


def test_files_of_the_release_that_were_changed() -> None:
    """Named, ten at most, with what brings them back."""
    names = ("it's a view.py", *(f"a{number}.py" for number in range(10)))
    assert "\n".join(site(Look(changed=names), **CURRENT).splitlines()[1:15]) == shell(
        f"""
        warning  release: files of 7-0123456789ab were changed by hand:
                 | it's a view.py
                 | a0.py
                 | a1.py
                 | a2.py
                 | a3.py
                 | a4.py
                 | a5.py
                 | a6.py
                 | a7.py
                 | a8.py
                 | … and 1 more
                 do this: on the host, as ada: git '--git-dir=/srv/it'"'"'s here/repo.git' archive {SHA} -- 'it'"'"'s a view.py' a0.py a1.py a2.py a3.py a4.py a5.py a6.py a7.py a8.py | tar -x -C '/srv/it'"'"'s here/releases/7-0123456789ab'
                          then: fab -H ada@web1 restart
        """
    )
    unknown = site(Look(), **CURRENT).splitlines()[1]
    assert unknown == "note     release: 7-0123456789ab could not be compared with its commit"


def test_another_deployment() -> None:
    """It stops one that does not wait."""
    look = Look(lock="it's ann, deploy, since noon", changed=())
    assert site(look, **CURRENT).splitlines()[2:5] == [
        "error    lock: another deployment is running: it's ann, deploy, since noon",
        "         do this: wait for it: fab -H ada@web1 deploy --wait=600",
        "                  or see: fab -H ada@web1 unlock",
    ]
    assert site(look, {"lock_wait": 60}, **CURRENT).splitlines()[2].startswith("note     lock: ")


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"activation": {"release": "8-it's", "state": "armed"}}, "an activation of 8-it's is under way or was left behind (armed)"),
        ({"slots": {"a": RELEASE, "b": "8-it's"}}, f"an activation of {RELEASE} is under way or was left behind"),
    ],
)  # fmt: skip
def test_what_was_left_behind(facts: dict[str, Any], text: str) -> None:
    """By its record, or by a slot that is not live."""
    found = site(Look(changed=()), **{**CURRENT, **facts})
    assert f"warning  activation: {text}\n         do this: fab -H ada@web1 deploy --resume" in found


def test_what_was_before() -> None:
    """More releases than are to be kept, and a last word that is not a good one."""
    marked = {f"{number}-it's": {"commit": SHA} for number in range(1, 8)}
    failed = ({**CURRENT["journal"][0], "result": "reverted"},)
    found = site(Look(changed=()), **{**CURRENT, "releases": {**marked, RELEASE: {"commit": SHA}}, "journal": failed})
    assert found.splitlines()[3:] == [
        "note     releases: 7-0123456789ab serves, 8 are complete; keep_releases is 5",
        "         do this: fab -H ada@web1 prune",
        "note     journal: 2026-01-02T03:04:05Z: deploy of 7-0123456789ab by it's me: reverted",
    ]
    pinned = {**CURRENT, "releases": marked, "pins": ("1-it's", "2-it's")}
    assert "ok       releases: " in site(Look(changed=()), **pinned)


# --- what was changed by hand --------------------------------------------------


def test_programs() -> None:
    """As a diff, with the task that writes the file."""
    conf = Put(PurePosixPath("/etc/it's.conf"), "; it's ours\nuser=ada\n")
    starter = Put(PurePosixPath("/srv/it's/slot"), "#!/bin/sh\n")
    managed = {str(conf.path): {"text": "; it's ours\nuser=root\n"}}
    pairs = [(conf, "supervisor.configure"), (starter, "restart")]
    assert told(judge_site.programs(case(managed=managed, **CURRENT), pairs)) == shell("""
        warning  programs: /etc/it's.conf is not what fabric.yaml says: changed by hand, or the settings have
                 | --- on the host
                 | +++ fabric.yaml
                 | @@ -1,2 +1,2 @@
                 |  ; it's ours
                 | -user=root
                 | +user=ada
                 do this: fab -H ada@web1 supervisor.configure
        warning  programs: /srv/it's/slot is not there: what it starts does not start again
                 do this: fab -H ada@web1 restart
    """)
    managed = {str(put.path): {"text": put.content} for put, _ in pairs}
    same = told(judge_site.programs(case(managed=managed, **CURRENT), pairs))
    assert same == "ok       programs: the files of supervisor are what fabric.yaml says"


def test_files_that_a_release_was_given() -> None:
    """Changed by hand, which a deploy mends; or no longer what the settings say. A secret is never shown."""
    private = LAYOUT.private(RELEASE)
    run = Put(private / "run", "#!/bin/sh\nit's new\n")
    env = Put(private / "env", "export IT='s3cret'\n", secret=True)
    there = LAYOUT.current / ".fabdjango"
    managed = {str(there / "run"): {"text": "#!/bin/sh\nit's old\n"}, str(there / "env"): {"digest": "d"}}
    given = case(managed=managed, **CURRENT)
    assert told(judge_site.edited(given, (run, env), by_hand=True)) == shell("""
        warning  config: /srv/it's here/releases/7-0123456789ab/.fabdjango/run was changed by hand
                 | --- on the host
                 | +++ fabric.yaml
                 | @@ -1,2 +1,2 @@
                 |  #!/bin/sh
                 | -it's old
                 | +it's new
                 do this: fab -H ada@web1 deploy
        warning  config: /srv/it's here/releases/7-0123456789ab/.fabdjango/env was changed by hand
                 | (secret, not shown)
                 do this: fab -H ada@web1 deploy
    """)
    assert told(judge_site.edited(given, (run, env), by_hand=False)) == shell("""
        note     config: settings, or the host's Python, have changed since 7-0123456789ab was made
                 | run:
                 | --- on the host
                 | +++ fabric.yaml
                 | @@ -1,2 +1,2 @@
                 |  #!/bin/sh
                 | -it's old
                 | +it's new
                 | env:
                 | (secret, not shown)
                 do this: fab -H ada@web1 deploy
    """)
    assert (
        told(judge_site.edited(given, (), by_hand=True))
        == "ok       config: 7-0123456789ab runs with what fabric.yaml says"
    )


# --- Django ------------------------------------------------------------------


def message(id: str, level: int = 30, **more: str) -> dict[str, Any]:
    """One of Django's."""
    return {"id": id, "level": level, "text": "It's\nbad.", "hint": "", "about": "", **more}


def django(
    *messages: dict[str, Any], settings: dict[str, Any] | None = None, databases: tuple[dict[str, Any], ...] = ()
) -> str:
    """What is said of an answer."""
    return told(judge_site.django(case(None, settings, **CURRENT), Started(messages, databases)))


def test_messages_of_django() -> None:
    """Each with its id, and what mends it: the line of the settings, Django's own hint, or that it is meant."""
    assert django(
        message("security.W018"),
        message("security.W008"),
        message("it.W001", hint="It's easy.", about="it.Model"),
        message("it.E001", 40),
        message("", 20),
    ) == shell("""
        warning  django-security.W018: It's bad.
                 do this: in the project's settings: DEBUG = False
                          or, if it is meant: SILENCED_SYSTEM_CHECKS = ["security.W018"]
        warning  django-security.W008: It's bad.
                 do this: once the site is served over https, in the project's settings: SECURE_SSL_REDIRECT = True
                          or, if it is meant: SILENCED_SYSTEM_CHECKS = ["security.W008"]
        warning  django-it.W001: it.Model: It's bad.
                 do this: It's easy.
                          or, if it is meant: SILENCED_SYSTEM_CHECKS = ["it.W001"]
        error    django-it.E001: It's bad.
                 do this: mend it in the project
                          or, if it is meant: SILENCED_SYSTEM_CHECKS = ["it.E001"]
        note     django: It's bad.
                 do this: mend it in the project
    """)
    assert django() == "ok       django: manage.py check --deploy has nothing to say"


def test_what_nginx_does_is_no_warning() -> None:
    """It sends visitors to https, and browsers remember it."""
    tls = {"tls": "files", "certificate": "/it's", "certificate_key": "/k", "domains": ["it.example.com"], "hsts": 300}
    found = django(
        message("security.W008"), message("security.W004"), message("security.W012"), settings={"nginx": tls}
    )
    assert [each.split(":")[0] for each in found.splitlines() if not each.startswith(" ")] == [
        "note     django-security.W008",
        "note     django-security.W004",
        "warning  django-security.W012",
    ]


def test_the_level_that_stops_a_deploy() -> None:
    """It is a setting."""
    assert django(message("it.E001", 40), settings={"django": {"check": "CRITICAL"}}).startswith("warning  ")
    assert django(message("it.E001", 50), settings={"django": {"check": "CRITICAL"}}).startswith("error    ")
    assert django(message("it.E001", 50), settings={"django": {"check": "never"}}).startswith("warning  ")


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        ({}, "ok       database: the database default (postgresql it's db:5432) can be written"),
        (
            {"note": "it was not opened"},
            "ok       database: the database default (postgresql it's db:5432) can be written: it was not opened",
        ),
        (
            {"error": "password authentication failed"},
            """
            error    database: the database default (postgresql it's db:5432): password authentication failed
                     do this: does the server run, and are its name, account and password in the site's environment right?
                              try: fab -H ada@web1 django.dbshell
            """,
        ),
        (
            {"schema": "public", "user": "it"},
            """
            warning  database: the database default (postgresql it's db:5432): it may not make tables in the schema public, as migrations do
                     do this: on the host, as root: runuser -u postgres -- psql -d 'it'"'"'s' -c 'GRANT CREATE ON SCHEMA "public" TO "it"'
            """,
        ),
        (
            {"error": "may not write /it's", "path": "/it's"},
            """
            error    database: the database default (postgresql it's db:5432): may not write /it's
                     do this: on the host, as root: chown ada: '/it'"'"'s'
            """,
        ),
        (
            {"error": "there is no file /it's", "missing": True},
            """
            error    database: the database default (postgresql it's db:5432): there is no file /it's
                     do this: fab -H ada@web1 django.migrate
            """,
        ),
    ],
)
def test_databases(more: dict[str, Any], lines: str) -> None:
    """What each of them says, and what to do."""
    given = {"alias": "default", "vendor": "postgresql", "name": "it's", "place": "db:5432", **more}
    found = told(judge_site.django(case(**CURRENT), Started((message("x", 20),), (given,))))
    assert found.rpartition("\nnote ")[0] == shell(lines)


def test_a_django_that_does_not_start() -> None:
    """A variable that the settings miss is named; anything else is told in its own words."""
    output = "it's before\nthe settings module it.settings cannot be imported: KeyError: 'IT_KEY'\n"
    assert told(judge_site.django_failed(case(**CURRENT), output, "")) == shell("""
        error    settings: the settings read IT_KEY from the environment, where it is not set
                 | it's before
                 | the settings module it.settings cannot be imported: KeyError: 'IT_KEY'
                 do this: fab -H ada@web1 env.set IT_KEY
                          or in fabric.yaml, if it is no secret: environment: {IT_KEY: …}
                          then: fab -H ada@web1 deploy
    """)
    environ = "the settings module it cannot be imported: ImproperlyConfigured: Set the IT_KEY environment variable"
    assert told(judge_site.django_failed(case(**CURRENT), environ, "")).startswith(
        "error    settings: the settings read IT_KEY"
    )
    assert told(judge_site.django_failed(case(**CURRENT), "it's broken\ncure: mend it\n", "mend it")) == shell("""
        error    django: Django does not start in the release that serves
                 | it's broken
                 do this: mend it
    """)
    assert told(judge_site.django_failed(case(**CURRENT), "", "")).endswith(
        "do this: see: fab -H ada@web1 django.check"
    )
