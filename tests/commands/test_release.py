"""Releases: what is kept in one, the switch, and what is removed."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from fabdjango import onhost
from fabdjango.commands import release
from fabdjango.escape import Secret
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from fabdjango.plan import Put
from tests.conftest import KEY, LAYOUT, RELEASE, SHA, sample_facts, sample_settings, sample_templates, shell, shown


def files(values: dict[str, Any] | None = None, **more: Any) -> dict[str, Put]:
    """What a release keeps, by name."""
    words: dict[str, Any] = {"release": RELEASE, "key": KEY, "env": {}, "local_settings": None, **more}
    puts = release.private_files(sample_settings(values), sample_facts(), LAYOUT, sample_templates(), **words)
    return {put.path.name: put for put in puts}


def test_new_id() -> None:
    """Counted by the host's releases, never by a clock."""
    assert release.new_id(sample_facts(highest=9, subject="it's"), SHA) == "10-0123456789ab"


@pytest.mark.parametrize(
    "text",
    ["", "it's", "7", "7-0123456789AB", "7-0123456789abc", "../7-0123456789ab", "7-0123456789ab\n", "-1-0123456789ab"],
)
def test_no_id(text: str) -> None:
    """Only what new_id gives is the name of a release."""
    assert release.read_id(RELEASE) == RELEASE
    with pytest.raises(ConfigError) as caught:
        release.read_id(text)
    assert caught.value.message == f"{text!r} is not the id of a release"


@pytest.mark.parametrize("text", ["/it's", "../it's", "a/../../it's", ".", "", "./", ".fabdjango", ".fabdjango/run"])
def test_a_shared_path_outside(text: str) -> None:
    """Only paths inside the commit can be shared, and not what is ours."""
    with pytest.raises(ConfigError) as caught:
        release.shared_path(text)
    assert caught.value.message == f"fabdjango.shared: {text!r} is not a path inside the commit"


def test_what_a_release_keeps() -> None:
    """Names and modes; what may be secret is for owner and group only."""
    found = files({"processes": {"worker": {"command": "it's"}}}, local_settings="A = 'a b'")
    assert {name: (f"{put.mode:o}", put.secret) for name, put in found.items()} == {
        "run": ("755", False),
        "venv": ("644", False),
        "env": ("640", True),
        "gunicorn.conf.py": ("644", False),
        "web": ("755", False),
        "process-worker": ("755", False),
        "local_settings.py": ("640", True),
    }
    assert {put.path.parent for put in found.values()} == {LAYOUT.private(RELEASE)}
    assert found["venv"].content == "/srv/it's here/venvs/00112233aabbccdd\n"
    assert found["local_settings.py"].content == "A = 'a b'"


def test_the_environment_of_a_release() -> None:
    """The settings' and the file's, of which the file wins; shown to nobody."""
    env = {"B": Secret("from 'file'"), "C": Secret("it's\nlong")}
    found = files({"environment": {"A": "a b", "B": "from settings"}}, env=env)["env"]
    assert "long" not in repr(found)
    assert found.content.strip() == shell(r"""
        export A='a b'
        export B='from '\''file'\'''
        export C='it'\''s
        long'
    """)


def test_process() -> None:
    """A command line of the project's own goes to sh as one word."""
    found = files({"processes": {"worker": {"command": "celery -A 'it is' worker | cat"}}})
    assert found["process-worker"].content.splitlines()[-1] == shell("""
        exec /bin/sh '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/run' sh -c 'celery -A '"'"'it is'"'"' worker | cat'
    """)


def test_write_private() -> None:
    """After the files themselves: what somebody keeps in shared by hand is copied, unless the settings bring their own."""
    assert shown(
        release.write_private(sample_settings(django={"manage": "it's/manage.py"}), LAYOUT, RELEASE, ())
    ) == shell("""
        # settings: environment, settings and start scripts of the release
        chmod 750 '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango'
        mkdir -p -- '/srv/it'"'"'s here/releases/7-0123456789ab/it'"'"'s'
        if [ -f '/srv/it'"'"'s here/shared/generated.env' ]; then
          install -m 640 -- '/srv/it'"'"'s here/shared/generated.env' '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/generated.env'
        fi
        if [ -f '/srv/it'"'"'s here/shared/.env' ]; then
          install -m 640 -- '/srv/it'"'"'s here/shared/.env' '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/shared.env'
        fi
        if [ -f '/srv/it'"'"'s here/shared/local_settings.py' ]; then
          install -m 640 -- '/srv/it'"'"'s here/shared/local_settings.py' '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/local_settings.py'
        fi
    """)


def test_write_private_with_own_settings() -> None:
    """Nothing of shared is taken but what was made on the host."""
    settings = sample_settings(env_file="it's.env", local_settings="it's.py.j2")
    assert release.write_private(settings, LAYOUT, RELEASE, ()).body == shell("""
        chmod 750 '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango'
        mkdir -p -- '/srv/it'"'"'s here/releases/7-0123456789ab'
        if [ -f '/srv/it'"'"'s here/shared/generated.env' ]; then
          install -m 640 -- '/srv/it'"'"'s here/shared/generated.env' '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/generated.env'
        fi
    """)


def test_link_settings() -> None:
    """Beside the settings module."""
    assert shown(release.link_settings(sample_settings(), sample_facts(), LAYOUT, RELEASE)) == shell("""
        # link-settings: link local_settings.py beside the settings
        if ! [ -f '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/local_settings.py' ]; then
          unchanged 'there is none'
        fi
        mkdir -p -- '/srv/it'"'"'s here/releases/7-0123456789ab/blog'
        rm -f -- '/srv/it'"'"'s here/releases/7-0123456789ab/blog/local_settings.py'
        ln -s -- '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/local_settings.py' '/srv/it'"'"'s here/releases/7-0123456789ab/blog/local_settings.py'
    """)


def test_publish_settings() -> None:
    """Under its own name."""
    step = release.publish_settings(LAYOUT, {"A": Secret("it's secret")}, None)
    assert shown(step) == shell("""
        # publish: keep the settings in shared
        replace '/srv/it'"'"'s here/shared/.env' 640 <<'EOF'
        (26 bytes, hidden)
        EOF
        [ "$changed_files" ] || unchanged "as before"
    """)


def test_nothing_to_publish() -> None:
    """A site without settings of its own leaves shared alone."""
    assert release.publish_settings(LAYOUT, {}, None) is None


def test_link_shared() -> None:
    """A file and a folder; what the commit has there is taken along the first time."""
    settings = sample_settings(shared=["media/", "it's/db.sqlite3"])
    assert shown(release.link_shared(settings, LAYOUT, RELEASE)) == shell("""
        # links: link media/, it's/db.sqlite3
        mkdir -p -- '/srv/it'"'"'s here/shared' '/srv/it'"'"'s here/releases/7-0123456789ab'
        if ! [ -e '/srv/it'"'"'s here/shared/media' ] && [ -e '/srv/it'"'"'s here/releases/7-0123456789ab/media' ] && ! [ -L '/srv/it'"'"'s here/releases/7-0123456789ab/media' ]; then
        rm -rf -- '/srv/it'"'"'s here/shared/.fabdjango.media'
        cp -a -- '/srv/it'"'"'s here/releases/7-0123456789ab/media' '/srv/it'"'"'s here/shared/.fabdjango.media'
        mv -T -- '/srv/it'"'"'s here/shared/.fabdjango.media' '/srv/it'"'"'s here/shared/media'
        fi
        mkdir -p -- '/srv/it'"'"'s here/shared/media'
        rm -rf -- '/srv/it'"'"'s here/releases/7-0123456789ab/media'
        ln -s -- '/srv/it'"'"'s here/shared/media' '/srv/it'"'"'s here/releases/7-0123456789ab/media'
        mkdir -p -- '/srv/it'"'"'s here/shared/it'"'"'s' '/srv/it'"'"'s here/releases/7-0123456789ab/it'"'"'s'
        if ! [ -e '/srv/it'"'"'s here/shared/it'"'"'s/db.sqlite3' ] && [ -e '/srv/it'"'"'s here/releases/7-0123456789ab/it'"'"'s/db.sqlite3' ] && ! [ -L '/srv/it'"'"'s here/releases/7-0123456789ab/it'"'"'s/db.sqlite3' ]; then
        rm -rf -- '/srv/it'"'"'s here/shared/it'"'"'s/.fabdjango.db.sqlite3'
        cp -a -- '/srv/it'"'"'s here/releases/7-0123456789ab/it'"'"'s/db.sqlite3' '/srv/it'"'"'s here/shared/it'"'"'s/.fabdjango.db.sqlite3'
        mv -T -- '/srv/it'"'"'s here/shared/it'"'"'s/.fabdjango.db.sqlite3' '/srv/it'"'"'s here/shared/it'"'"'s/db.sqlite3'
        fi
        rm -rf -- '/srv/it'"'"'s here/releases/7-0123456789ab/it'"'"'s/db.sqlite3'
        ln -s -- '/srv/it'"'"'s here/shared/it'"'"'s/db.sqlite3' '/srv/it'"'"'s here/releases/7-0123456789ab/it'"'"'s/db.sqlite3'
    """)


def test_a_shared_path_inside_another_is_refused() -> None:
    """Its link would be written through the other's, and what is there would go."""
    with pytest.raises(ConfigError, match="media/it's cache lies inside media"):
        release.check_shared(["media/", "media/it's cache/"])


def test_nothing_to_link() -> None:
    """No step at all."""
    assert release.link_shared(sample_settings(environment={"A": "it's"}), LAYOUT, RELEASE) is None


def test_complete() -> None:
    """The marker comes last, by a rename, when all is on the disk."""
    assert shown(release.complete(LAYOUT, RELEASE, KEY, {"by": "it's me", "commit": SHA})) == shell(r"""
        # complete: release 7-0123456789ab is complete
        if ! [ -e '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete' ]; then
        find '/srv/it'"'"'s here/venvs/00112233aabbccdd' -perm /022 ! -type l -exec chmod go-w -- '{}' '+'
        sync -f -- '/srv/it'"'"'s here/venvs/00112233aabbccdd'
        touch -- '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete'
        fi
        sync -f -- '/srv/it'"'"'s here/releases/7-0123456789ab'
        printf '%s\n' '{"by": "it'"'"'s me", "commit": "0123456789abcdef0123456789abcdef01234567"}' > '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/release.json.new'
        sync -- '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/release.json.new'
        mv -fT -- '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/release.json.new' '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/release.json'
        sync -- '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango'
    """)


def test_clear_leftovers() -> None:
    """Releases without a marker go, but never the one that serves."""
    releases = {"1-it's": None, "2-b": {"commit": SHA}, "3-c": None}
    facts = sample_facts(releases=releases, current="3-c")
    assert shown(release.clear_leftovers(facts, LAYOUT)) == shell("""
        # recover: clear what a dead deployment left
        rm -rf -- '/srv/it'"'"'s here/releases/1-it'"'"'s'
        find '/srv/it'"'"'s here/venvs' -mindepth 1 -maxdepth 1 -type d ! -exec test -e '{}/.complete' ';' -exec rm -rf -- '{}' '+' 2>/dev/null || :
        rm -rf -- '/srv/it'"'"'s here'/.current.* '/srv/it'"'"'s here/run'/.*.new '/srv/it'"'"'s here/shared'/.fabdjango.*
        note 'removed 1-it'"'"'s, which were never completed'
    """)


def test_nothing_left_over() -> None:
    """It looks all the same."""
    assert shown(release.clear_leftovers(sample_facts(), LAYOUT)).splitlines()[-1] == "unchanged 'nothing was left'"


def test_no_site_yet() -> None:
    """Nothing to clear."""
    assert release.clear_leftovers(sample_facts(root_exists=False, subject="it's"), LAYOUT) is None


def test_still_as_surveyed() -> None:
    """Another deployment that came in between is noticed."""
    assert shown(release.still_as_surveyed(sample_facts(current="6-a"), LAYOUT, RELEASE)) == shell("""
        # still: the site is as it was surveyed
        [ "$(readlink '/srv/it'"'"'s here/current')" = releases/6-a ] || refuse 'another deployment changed the site in the meantime: deploy again'
        [ ! -e '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/release.json' ] || refuse 'another deployment changed the site in the meantime: deploy again'
        rm -rf -- '/srv/it'"'"'s here/releases/7-0123456789ab'
    """)


def test_still_as_surveyed_before_the_first() -> None:
    """Nothing serves."""
    assert release.still_as_surveyed(sample_facts(), LAYOUT).body == shell("""
        [ "$(readlink '/srv/it'"'"'s here/current')" = '' ] || refuse 'another deployment changed the site in the meantime: deploy again'
    """)


ASKED = {
    "bind": "unix:/srv/it's here/run/x.sock",
    "path": "/it's",
    "expect": (200, 204),
    "text": "a b",
    "host": "",
    "https": "auto",
    "static": "",
    "workers": 1,
}
HEALTH = {"path": "/it's", "text": "a b", "expect": [200, 204]}


def test_ask_health() -> None:
    """From the Python of the release, with everything as parameters; outside, one answer at a time is enough."""
    settings = sample_settings(health=HEALTH, gunicorn={"bind": "unix:{run}/x.sock"})
    step = release.ask_health(settings, LAYOUT, RELEASE, timeout=5, also=("6-it's",))
    assert step.program == onhost.source("health")
    assert step.parameters == {
        **ASKED,
        "also": ("6-it's",),
        "consecutive": 3,
        "timeout": 5,
        "release": "7-0123456789ab",
        "releases": "/srv/it's here/releases",
        "answer": "/srv/it's here/releases/7-0123456789ab/.fabdjango/django.json",
    }
    assert shown(step) == shell("""
        # health: 7-0123456789ab answers /it's
        cd -- '/srv/it'"'"'s here'
        "$(cat -- '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/venv')"/bin/python -I -S - # Ask the site until every worker of the wanted release has answered well, several times in a row, or the time is over.
    """)


def test_a_slot_is_asked_at_its_own_socket() -> None:
    """All its workers; with what an older release wants to be asked, and not with the settings of now."""
    settings = sample_settings(health=HEALTH, gunicorn={"bind": "unix:{run}/x.sock"})
    older = {"bind": "127.0.0.1:1", "path": "/old", "workers": 5}
    step = release.ask_health(settings, LAYOUT, RELEASE, slot="b", how=older)
    assert (step.title, {name: step.parameters[name] for name in ("bind", "path", "workers", "text")}) == (
        "7-0123456789ab answers /old in slot b",
        {"bind": "unix:/srv/it's here/run/sockets/b.sock", "path": "/old", "workers": 5, "text": "a b"},
    )
    outside = release.ask_health(settings, LAYOUT, RELEASE, how=older).parameters
    assert (outside["bind"], outside["workers"]) == ("127.0.0.1:1", 1)


def test_a_release_keeps_how_it_is_asked() -> None:
    """What its marker says is what a revert to it asks."""
    settings = sample_settings(health=HEALTH, gunicorn={"bind": "unix:{run}/x.sock"})
    assert release.how_to_ask(settings, LAYOUT, 9) == {**ASKED, "workers": 9}


def test_hook() -> None:
    """The project's own command, in the release, ended by a time."""
    settings = sample_settings(hooks={"before_switch": ["echo 'it is'\nls", "  "]}, django={"timeout": 9})
    assert shown(*release.hook(settings, "before_switch", LAYOUT.current)) == shell("""
        # before_switch: before_switch: echo 'it is'
        timeout -k 10 9 /bin/sh '/srv/it'"'"'s here/current/.fabdjango/run' sh -ec 'echo '"'"'it is'"'"'
        ls'
        # before_switch: before_switch: (empty)
        timeout -k 10 9 /bin/sh '/srv/it'"'"'s here/current/.fabdjango/run' sh -ec '  '
    """)


def test_early_hook() -> None:
    """Where no release is yet, in the root."""
    settings = sample_settings(hooks={"before_fetch": "echo it's"})
    assert shown(*release.early_hook(settings, LAYOUT, "before_fetch")) == shell("""
        # before_fetch: before_fetch: echo it's
        mkdir -p -- '/srv/it'"'"'s here'
        cd -- '/srv/it'"'"'s here'
        set --; [ ! -e '/srv/it'"'"'s here/current/.fabdjango/run' ] || set -- /bin/sh '/srv/it'"'"'s here/current/.fabdjango/run'
        timeout -k 10 1800 "$@" sh -ec 'echo it'"'"'s'
    """)


def test_run_first() -> None:
    """Recorded only after all of them."""
    settings = sample_settings(first_deploy=["echo 'it is'"])
    assert shown(*release.run_first(settings, LAYOUT, LAYOUT.current)) == shell("""
        # first-deploy: first-deploy: echo 'it is'
        timeout -k 10 1800 /bin/sh '/srv/it'"'"'s here/current/.fabdjango/run' sh -ec 'echo '"'"'it is'"'"''
        # first-deploy: record that this was the first deploy
        touch -- '/srv/it'"'"'s here/first-deploy.done'
    """)


def test_no_commands() -> None:
    """Nothing is run, and nothing recorded."""
    settings = sample_settings(environment={"A": "it's"})
    assert release.run_first(settings, LAYOUT, LAYOUT.current) == ()
    assert release.hook(settings, "before_switch", LAYOUT.current) == ()


def test_journal() -> None:
    """One line of JSON with the host's time, on the disk before anybody is told."""
    assert shown(release.journal(LAYOUT, {"event": "deploy", "by": "it's me"})) == shell(r"""
        # journal: write the journal
        [ ! -s '/srv/it'"'"'s here/journal.jsonl' ] || [ -z "$(tail -c 1 -- '/srv/it'"'"'s here/journal.jsonl')" ] || printf "\n" >> '/srv/it'"'"'s here/journal.jsonl'
        printf '{"time": "%s", %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" '"by": "it'"'"'s me", "event": "deploy"}' >> '/srv/it'"'"'s here/journal.jsonl'
        sync -- '/srv/it'"'"'s here/journal.jsonl'
    """)


def test_journal_undone() -> None:
    """Reverted is a release that had the traffic; one that never had it has failed."""
    step = release.journal_undone(LAYOUT, {"by": "it's me"}, LAYOUT.run / "activation.reverting")
    assert shown(step) == shell(r"""
        # journal: write the journal
        if [ -e '/srv/it'"'"'s here/run/activation.reverting' ]; then
        [ ! -s '/srv/it'"'"'s here/journal.jsonl' ] || [ -z "$(tail -c 1 -- '/srv/it'"'"'s here/journal.jsonl')" ] || printf "\n" >> '/srv/it'"'"'s here/journal.jsonl'
        printf '{"time": "%s", %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" '"by": "it'"'"'s me", "result": "reverted"}' >> '/srv/it'"'"'s here/journal.jsonl'
        else
        [ ! -s '/srv/it'"'"'s here/journal.jsonl' ] || [ -z "$(tail -c 1 -- '/srv/it'"'"'s here/journal.jsonl')" ] || printf "\n" >> '/srv/it'"'"'s here/journal.jsonl'
        printf '{"time": "%s", %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" '"by": "it'"'"'s me", "result": "failed"}' >> '/srv/it'"'"'s here/journal.jsonl'
        fi
        sync -- '/srv/it'"'"'s here/journal.jsonl'
    """)


def test_prune() -> None:
    """The decision is made on the host, where the processes are; the current release counts as the last that served."""
    step = release.prune(sample_settings(keep_releases=3), LAYOUT, RELEASE, ("5-it's", RELEASE, "6-b"))
    assert step.program == onhost.source("prune")
    assert step.parameters == {
        "root": "/srv/it's here",
        "keep": 3,
        "current": "7-0123456789ab",
        "proven": ["5-it's", "6-b", "7-0123456789ab"],
    }
    assert shown(step) == shell("""
        # prune: keep 3 releases
        python3 -I -S - # Remove releases beyond the newest that have served, and virtualenvs that none of the kept releases uses.
    """)


def test_pin_and_unpin() -> None:
    """A file for each; both may be repeated."""
    assert shown(release.pin(LAYOUT, RELEASE), release.unpin(LAYOUT, RELEASE)) == shell("""
        # pin: 7-0123456789ab is kept
        [ -d '/srv/it'"'"'s here/releases/7-0123456789ab' ] || refuse 'there is no release 7-0123456789ab'
        [ ! -e '/srv/it'"'"'s here/pins/7-0123456789ab' ] || unchanged 'it was'
        mkdir -p -- '/srv/it'"'"'s here/pins'
        touch -- '/srv/it'"'"'s here/pins/7-0123456789ab'
        # unpin: 7-0123456789ab is kept no longer than others
        [ -e '/srv/it'"'"'s here/pins/7-0123456789ab' ] || unchanged 'it was not pinned'
        rm -f -- '/srv/it'"'"'s here/pins/7-0123456789ab'
    """)


def fingerprint(
    values: dict[str, Any] | None = None, sha: str = SHA, key: str = KEY, more: object = None, **words: Any
) -> str:
    """What two releases are compared by."""
    return release.fingerprint_of(sha, key, files(values, release=release.PLACEHOLDER, **words).values(), more)


def test_what_makes_a_release_another() -> None:
    """Commit, virtualenv, environment, settings, programs, and whatever else is handed in."""
    same = fingerprint({"environment": {"A": "it's"}})
    assert same == fingerprint({"environment": {"A": "it's"}, "branch": "other", "keep_releases": 2})
    others = [
        fingerprint(),
        fingerprint({"environment": {"A": "it's"}}, sha="f" * 40),
        fingerprint({"environment": {"A": "it's"}}, key="f" * 16),
        fingerprint({"environment": {"A": "it's"}}, more=["it's"]),
        fingerprint({"environment": {"A": "it's"}}, local_settings="A = 1"),
        fingerprint({"environment": {"A": "it's"}}, env={"B": Secret("it's")}),
        fingerprint({"environment": {"A": "it's"}, "gunicorn": {"timeout": 9}}),
        fingerprint({"environment": {"A": "it's"}, "processes": {"a": {"command": "b"}}}),
    ]
    assert len({same, *others}) == len(others) + 1


def test_shared_paths_on_a_real_disk(tmp_path: Path) -> None:
    """What the first commit has there is taken along once; what the site wrote since stays."""
    layout = Layout(PurePosixPath(tmp_path / "it's here"), "blog")
    settings = sample_settings(shared=["media/", "it's/db.sqlite3"])
    for name, text in (("1-000000000001", "one"), ("2-000000000002", "two")):
        path = Path(layout.release(name))
        (path / "media").mkdir(parents=True)
        (path / "media" / "a b").write_text(text)
        linked = release.link_shared(settings, layout, name)
        assert linked
        subprocess.run(["dash", "-e"], input=linked.body.encode(), check=True)
        (path / "it's" / "db.sqlite3").write_text(text)
    newest = Path(layout.release("2-000000000002"))
    assert (newest / "media" / "a b").read_text() == "one"
    assert (newest / "it's" / "db.sqlite3").read_text() == "two"
    assert sorted(path.name for path in Path(layout.root).iterdir()) == ["releases", "shared"]
    assert (Path(layout.release("1-000000000001")) / "it's" / "db.sqlite3").read_text() == "two"
