"""What a check asks, and how the answers are read."""

from __future__ import annotations

import json

import pytest

from fabdjango.commands import check
from fabdjango.commands.check import ERROR, Finding, Holder, Listener, Look, Started
from fabdjango.exceptions import FabdjangoError
from tests.conftest import LAYOUT, RELEASE, SHA, sample_facts, sample_settings, shell, shown

TLS = {
    "domains": ["blog.example.com"],
    "tls": "files",
    "certificate": "/etc/it's.pem",
    "certificate_key": "/etc/it's.key",
}


def test_a_finding_of_weight_has_a_cure() -> None:
    """Or it would leave its reader alone."""
    with pytest.raises(ValueError, match='the finding "it\'s full" has no cure'):
        Finding("disk", ERROR, "it's full")


def test_an_error_as_a_finding() -> None:
    """With its output, and a cure also where it has none of its own."""
    error = FabdjangoError("it's wrong", output="one\ntwo\n", cure="do it")
    assert check.from_error("it", error) == Finding("it", "error", "it's wrong\none\ntwo", "do it")
    assert check.from_error("it", FabdjangoError("no")).cure == "see where the settings come from: fab config"


def test_a_difference() -> None:
    """As a unified diff, and not without end."""
    assert check.difference("it's\na\nb\n", "it's\na\nc\n") == shell("""
        --- on the host
        +++ fabric.yaml
        @@ -2,2 +2,2 @@
         a
        -b
        +c
    """)
    assert check.difference("it's", "it's") == ""
    long = check.difference("", "\n".join(map(str, range(50))), most=4)
    assert long == "--- on the host\n+++ fabric.yaml\n@@ -0,0 +1,50 @@\n+0\n… 49 more lines"


# --- what is asked -----------------------------------------------------------


def test_the_questions() -> None:
    """As three accounts, with one program; nothing of it stands on a command line."""
    settings = sample_settings(repository="git@example.com:it's/blog.git")
    facts = sample_facts(current=RELEASE, releases={RELEASE: {"commit": SHA}})
    assert shown(
        check.look_at_host(LAYOUT, "ada"),
        check.ask_repository(settings),
        check.look_at_site(settings, LAYOUT, facts, ""),
        check.look_as_root(settings, LAYOUT, facts),
        check.start_django(settings, LAYOUT, RELEASE),
    ) == shell("""
        # check-host (as (login)): look at the host
        python3 -I -S - # Look at what a deploy needs of the host and at what has changed on it; print it as one line of JSON. Writes nothing.
        # repository: look at git@example.com:it's/blog.git
        GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20' timeout -k 10 300 git ls-remote --heads --tags -- 'git@example.com:it'"'"'s/blog.git' 2>&1 && status=0 || status=$?
        printf "status %s\\n" "$status"
        # check-site: look at the site
        python3 -I -S - # Look at what a deploy needs of the host and at what has changed on it; print it as one line of JSON. Writes nothing.
        # check-root (as root): look at what is root's
        python3 -I -S - # Look at what a deploy needs of the host and at what has changed on it; print it as one line of JSON. Writes nothing.
        # check-django: start Django as the site does
        timeout -k 10 300 /bin/sh '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/run' python -B - # Start Django as the site does: its checks for deployment, and whether its databases can be written. Writes nothing.
    """)


def test_what_the_look_at_the_site_is_told() -> None:
    """Paths and names; of a database's address, not who may enter."""
    settings = sample_settings(shared=["media/", "it's.db"], nginx=TLS)
    facts = sample_facts(current=RELEASE, releases={RELEASE: {"commit": SHA, "settings": "it.settings"}})
    assert check.look_at_site(settings, LAYOUT, facts, "").parameters == {
        "parts": ["disk", "places", "ports", "lock", "slot_memory", "changed", "certificate"],
        "root": "/srv/it's here",
        "places": [
            *("/srv/it's here", "/srv/it's here/releases", "/srv/it's here/venvs", "/srv/it's here/shared"),
            *("/srv/it's here/run", "/srv/it's here/shared/media", "/srv/it's here/shared/.env"),
            *("/srv/it's here/shared/generated.env", "/srv/it's here/shared/local_settings.py"),
        ],
        "lock": "/srv/it's here/run/lock",
        "mirror": "/srv/it's here/repo.git",
        "commit": SHA,
        "replaced": ["media", "it's.db", "it/local_settings.py"],
        "database": "",
        "env_files": ["/srv/it's here/shared/.env", "/srv/it's here/shared/generated.env"],
        "ports": [80, 443],
        "release": "/srv/it's here/releases/7-0123456789ab",
        "certificate": ["/etc/it's.pem", "/etc/it's.key"],
    }
    first = check.look_at_site(sample_settings(), LAYOUT, sample_facts(), "postgres://a:s3cret@db:5/it's")
    assert first.parameters["database"] == "postgres://db:5/it's"
    assert first.parameters["parts"] == [
        "disk",
        "places",
        "ports",
        "lock",
        "slot_memory",
        "changed",
        "database",
    ]
    assert (first.parameters["ports"], first.parameters["release"]) == ([8000], "")


# --- what is answered ----------------------------------------------------------


def test_a_later_look_wins() -> None:
    """It is that of an account that sees more."""
    own = {"ports": [[80, "root", []]], "lock": "it's ann", "unknown": 1}
    root = {"ports": [[80, "root", [[7, "nginx", "/", "nginx.service"]]]]}
    found = check.read_look(json.dumps(own), "", json.dumps(root))
    assert found == Look(lock="it's ann", ports=(Listener(80, "root", (Holder(7, "nginx", "/", "nginx.service"),)),))
    assert not found.may_be_root
    assert check.read_look(json.dumps({"sudo": ["all", []]})).may_be_root


def test_a_look_without_an_answer() -> None:
    """Its words are told."""
    with pytest.raises(FabdjangoError) as caught:
        check.read_look("it's broken\n")
    assert caught.value.output == "it's broken\n"


def test_what_the_repository_says() -> None:
    """Git's status, and its words."""
    assert check.read_repository("0123\trefs/heads/it's\nstatus 0\n") == (0, "0123\trefs/heads/it's\n")
    assert check.read_repository("fatal: it's away\nstatus 128\n") == (128, "fatal: it's away\n")
    assert check.read_repository("") == (1, "")


def test_what_django_says() -> None:
    """The last line; a project may print before it."""
    answer = {"messages": [{"id": "it's.W001"}], "databases": []}
    assert check.read_started("it's me\n" + json.dumps(answer)) == Started(({"id": "it's.W001"},), ())
