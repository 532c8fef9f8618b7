"""The shell that builds virtualenvs, and what decides whether a new one is needed."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from fabdjango.commands import venv
from fabdjango.exceptions import FabdjangoError
from tests.conftest import KEY, LAYOUT, RELEASE, SHA, sample_facts, sample_settings, shell, shown

NO_UV = sample_facts(programs={"git": "/usr/bin/git"})
RELEASE_PATH: PurePosixPath = LAYOUT.release(RELEASE)


def sources(*names: str, hashed: bool = False) -> dict[str, Any]:
    """Facts of a commit that is installed from these files."""
    return {"sources": list(names), "missing": [], "digest": "d" * 64, "hashed": hashed}


def test_create_with_uv() -> None:
    """An unfinished virtualenv is made anew, a complete one is left alone; uv downloads no Python."""
    assert shown(venv.create_venv(sample_settings(), sample_facts(), LAYOUT, KEY)) == shell("""
        # venv: virtualenv 00112233aabbccdd
        if [ -e '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete' ]; then
          unchanged 'same requirements'
        fi
        rm -rf -- '/srv/it'"'"'s here/venvs/00112233aabbccdd'
        UV_PYTHON_DOWNLOADS=never; export UV_PYTHON_DOWNLOADS
        /usr/bin/uv venv --quiet --no-project --python /usr/bin/python3 -- '/srv/it'"'"'s here/venvs/00112233aabbccdd'
    """)


def test_create_with_pip() -> None:
    """By the standard library."""
    settings = sample_settings(venv={"installer": "pip"})
    assert shown(venv.create_venv(settings, NO_UV, LAYOUT, KEY)) == shell("""
        # venv: virtualenv 00112233aabbccdd
        if [ -e '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete' ]; then
          unchanged 'same requirements'
        fi
        rm -rf -- '/srv/it'"'"'s here/venvs/00112233aabbccdd'
        UV_PYTHON_DOWNLOADS=never; export UV_PYTHON_DOWNLOADS
        /usr/bin/python3 -m venv -- '/srv/it'"'"'s here/venvs/00112233aabbccdd'
    """)


def test_create_with_what_there_will_be() -> None:
    """Where uv had to be fetched first, the host decides."""
    assert "\n".join(venv.create_venv(sample_settings(), NO_UV, LAYOUT, KEY).body.splitlines()[-5:]) == shell("""
        if [ -x '/srv/it'"'"'s here/tools/bin/uv' ]; then
          '/srv/it'"'"'s here/tools/bin/uv' venv --quiet --no-project --python /usr/bin/python3 -- '/srv/it'"'"'s here/venvs/00112233aabbccdd'
        else
          /usr/bin/python3 -m venv -- '/srv/it'"'"'s here/venvs/00112233aabbccdd'
        fi
    """)


def test_get_uv() -> None:
    """Into a virtualenv of its own, with the index of the settings; failing to is a note."""
    settings = sample_settings(venv={"index_url": "https://ada:it's@example.com/"})
    assert shown(venv.get_uv(settings, NO_UV, LAYOUT)) == shell("""
        # uv: install uv beside the site
        if [ -x '/srv/it'"'"'s here/tools/bin/uv' ]; then
          unchanged 'is there'
        fi
        export PIP_INDEX_URL='https://ada:it'"'"'s@example.com/'
        export PIP_NO_INPUT=1
        export UV_DEFAULT_INDEX='https://ada:it'"'"'s@example.com/'
        export UV_NO_PROGRESS=1
        export UV_PYTHON_DOWNLOADS=never
        if /usr/bin/python3 -m venv --clear '/srv/it'"'"'s here/tools' && timeout -k 10 1800 '/srv/it'"'"'s here/tools/bin/python' -m pip install --quiet --disable-pip-version-check --no-input uv; then
          :
        else
        rm -rf -- '/srv/it'"'"'s here/tools'
        note 'uv cannot be had here, so pip installs'
        fi
    """)


def test_get_uv_or_fail() -> None:
    """With installer uv, failing to get it is an error."""
    step = venv.get_uv(sample_settings(venv={"installer": "uv"}), NO_UV, LAYOUT)
    assert step
    assert step.body.splitlines()[-1] == shell("""
        /usr/bin/python3 -m venv --clear '/srv/it'"'"'s here/tools' && timeout -k 10 1800 '/srv/it'"'"'s here/tools/bin/python' -m pip install --quiet --disable-pip-version-check --no-input uv
    """)


def test_uv_that_is_there_or_not_wanted() -> None:
    """Nothing is fetched."""
    assert venv.get_uv(sample_settings(), sample_facts(), LAYOUT) is None
    assert venv.get_uv(sample_settings(venv={"installer": "pip"}), NO_UV, LAYOUT) is None


def test_install_requirements_with_uv() -> None:
    """A requirement file, then what the project does not list; options stand before the files."""
    settings = sample_settings(
        venv={"packages": ["gunicorn", "psycopg[binary] <4"], "options": ["--no-binary", "it's"]}
    )
    assert shown(venv.install_requirements(settings, sample_facts(), LAYOUT, KEY, RELEASE_PATH)) == shell("""
        # install: install requirements.txt
        if [ -e '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete' ]; then
          unchanged 'same requirements'
        fi
        cd -- '/srv/it'"'"'s here/releases/7-0123456789ab'
        export PIP_NO_INPUT=1
        export UV_NO_PROGRESS=1
        export UV_PYTHON_DOWNLOADS=never
        timeout -k 10 1800 /usr/bin/uv pip install --quiet --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' --no-binary 'it'"'"'s' -r ./requirements.txt
        timeout -k 10 1800 /usr/bin/uv pip install --quiet --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' --no-binary 'it'"'"'s' -- gunicorn 'psycopg[binary] <4'
    """)


def test_install_requirements_with_pip() -> None:
    """The same with pip; the first package of all is installed alone, and hashes are required where there are some."""
    settings = sample_settings(venv={"installer": "pip", "bootstrap": ["setuptools<70"], "find_links": ["/srv/it's"]})
    facts = sample_facts(requirements=sources("it's base.txt", "-r.txt", hashed=True))
    assert shown(venv.install_requirements(settings, facts, LAYOUT, KEY, RELEASE_PATH)) == shell("""
        # install: install it's base.txt, -r.txt
        if [ -e '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete' ]; then
          unchanged 'same requirements'
        fi
        cd -- '/srv/it'"'"'s here/releases/7-0123456789ab'
        export PIP_FIND_LINKS='/srv/it'"'"'s'
        export PIP_NO_INPUT=1
        export UV_FIND_LINKS='/srv/it'"'"'s'
        export UV_NO_PROGRESS=1
        export UV_PYTHON_DOWNLOADS=never
        timeout -k 10 1800 '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off -- 'setuptools<70'
        timeout -k 10 1800 '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off --require-hashes --no-build-isolation -r './it'"'"'s base.txt' -r ./-r.txt
        timeout -k 10 1800 '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off --no-build-isolation -- gunicorn
    """)


def test_install_a_lock_file() -> None:
    """uv.lock as it is; nothing is removed of what comes after."""
    settings = sample_settings(venv={"extras": ["a.b"], "groups": ["prod"], "no_index": True, "options": ["--it's"]})
    body = venv.install_requirements(
        settings, sample_facts(requirements=sources("uv.lock")), LAYOUT, KEY, RELEASE_PATH
    ).body
    assert "\n".join(body.splitlines()[-2:]) == shell("""
        UV_PROJECT_ENVIRONMENT='/srv/it'"'"'s here/venvs/00112233aabbccdd' timeout -k 10 1800 /usr/bin/uv sync --quiet --locked --no-dev --no-editable --no-install-project --extra a.b --group prod --no-index '--it'"'"'s'
        timeout -k 10 1800 /usr/bin/uv pip install --quiet --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' --no-index '--it'"'"'s' -- gunicorn
    """)


def test_install_a_project() -> None:
    """What pyproject.toml depends on, with extras; then the project, as install_project says."""
    settings = sample_settings(venv={"extras": ["a.b", "c"], "install_project": True, "packages": ["it's"]})
    facts = sample_facts(requirements=sources("pyproject.toml"))
    body = venv.install_requirements(settings, facts, LAYOUT, KEY, RELEASE_PATH).body
    assert "\n".join(body.splitlines()[-3:]) == shell("""
        timeout -k 10 1800 /usr/bin/uv pip install --quiet --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' --extra a.b --extra c -r ./pyproject.toml
        timeout -k 10 1800 /usr/bin/uv pip install --quiet --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -- '.[a.b,c]'
        timeout -k 10 1800 /usr/bin/uv pip install --quiet --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -- 'it'"'"'s'
    """)


def test_install_a_project_with_pip() -> None:
    """pip has no other way than to install the project itself."""
    settings = sample_settings(venv={"installer": "pip", "extras": ["a.b"], "packages": ["it's"]})
    facts = sample_facts(requirements=sources("pyproject.toml"))
    body = venv.install_requirements(settings, facts, LAYOUT, KEY, RELEASE_PATH).body
    assert "\n".join(body.splitlines()[-2:]) == shell("""
        timeout -k 10 1800 '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off -- '.[a.b]'
        timeout -k 10 1800 '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -m pip install --quiet --disable-pip-version-check --no-input --progress-bar off -- 'it'"'"'s'
    """)


def test_install_a_lock_file_without_uv() -> None:
    """Where uv could not be had, the step says so in words."""
    facts = sample_facts(programs={}, requirements=sources("uv.lock"))
    body = venv.install_requirements(
        sample_settings(venv={"packages": ["it's"]}), facts, LAYOUT, KEY, RELEASE_PATH
    ).body
    assert "\n".join(body.splitlines()[-6:]) == shell("""
        if [ -x '/srv/it'"'"'s here/tools/bin/uv' ]; then
        UV_PROJECT_ENVIRONMENT='/srv/it'"'"'s here/venvs/00112233aabbccdd' timeout -k 10 1800 '/srv/it'"'"'s here/tools/bin/uv' sync --quiet --locked --no-dev --no-editable --no-install-project
        timeout -k 10 1800 '/srv/it'"'"'s here/tools/bin/uv' pip install --quiet --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -- 'it'"'"'s'
        else
          refuse 'uv.lock can only be installed by uv, which is not on the host and cannot be had there'
        fi
    """)


def test_packages_of_an_asgi_site() -> None:
    """uvicorn comes with the interface."""
    settings = sample_settings(gunicorn={"interface": "asgi"}, venv={"packages": ["it's"]})
    body = venv.install_requirements(settings, sample_facts(), LAYOUT, KEY, RELEASE_PATH).body
    assert body.splitlines()[-1] == shell("""
        timeout -k 10 1800 /usr/bin/uv pip install --quiet --python '/srv/it'"'"'s here/venvs/00112233aabbccdd/bin/python' -- 'it'"'"'s' uvicorn uvicorn-worker
    """)


def test_where_packages_come_from() -> None:
    """Variables, because a command line is public; uv is told what pip's own files say."""
    settings = sample_settings(
        venv={
            "index_url": "https://ada:it's@a/",
            "extra_index_urls": ["https://b/", "https://c/"],
            "find_links": ["/d", "e"],
        }
    )
    assert venv.index_environment(settings, sample_facts()) == shell("""
        export PIP_EXTRA_INDEX_URL='https://b/ https://c/'
        export PIP_FIND_LINKS='/d e'
        export PIP_INDEX_URL='https://ada:it'"'"'s@a/'
        export PIP_NO_INPUT=1
        export UV_DEFAULT_INDEX='https://ada:it'"'"'s@a/'
        export UV_FIND_LINKS=/d,e
        export UV_INDEX='https://b/ https://c/'
        export UV_NO_PROGRESS=1
        export UV_PYTHON_DOWNLOADS=never
    """)


def test_where_the_hosts_pip_takes_packages_from() -> None:
    """What the host's pip.conf says, handed on to uv."""
    facts = sample_facts(
        pip_config={
            "index-url": "https://a/it's",
            "extra-index-url": "https://b/\n https://c/",
            "find-links": "/d /e",
            "cert": "/etc/a b.pem",
        }
    )
    assert venv.index_environment(sample_settings(), facts) == shell("""
        export PIP_NO_INPUT=1
        export SSL_CERT_FILE='/etc/a b.pem'
        export UV_DEFAULT_INDEX='https://a/it'"'"'s'
        export UV_FIND_LINKS=/d,/e
        export UV_INDEX='https://b/ https://c/'
        export UV_NO_PROGRESS=1
        export UV_PYTHON_DOWNLOADS=never
    """)


def test_mark_complete() -> None:
    """After everything is on the disk."""
    assert venv.mark_complete(LAYOUT, KEY) == shell("""
        if ! [ -e '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete' ]; then
        find '/srv/it'"'"'s here/venvs/00112233aabbccdd' -perm /022 ! -type l -exec chmod go-w -- '{}' '+'
        sync -f -- '/srv/it'"'"'s here/venvs/00112233aabbccdd'
        touch -- '/srv/it'"'"'s here/venvs/00112233aabbccdd/.complete'
        fi
    """)


def test_install_package() -> None:
    """By hand, into the virtualenv that serves."""
    assert shown(venv.install_package(sample_settings(), sample_facts(), LAYOUT, ("it's <2", "-x"))) == shell("""
        # package: install it's <2 -x into the virtualenv that serves
        [ -e '/srv/it'"'"'s here/current/.fabdjango/venv' ] || refuse 'current: no release with a virtualenv'
        venv=$(cat -- '/srv/it'"'"'s here/current/.fabdjango/venv')
        export PIP_NO_INPUT=1
        export UV_NO_PROGRESS=1
        export UV_PYTHON_DOWNLOADS=never
        timeout -k 10 1800 /usr/bin/uv pip install --python "$venv"/bin/python -- 'it'"'"'s <2' -x
    """)


def test_freeze() -> None:
    """By the virtualenv's own Python, which needs no pip."""
    step = venv.freeze(LAYOUT)
    assert step.capture
    assert shown(step) == shell(r"""
        # freeze: packages of current
        [ -e '/srv/it'"'"'s here/current/.fabdjango/venv' ] || refuse 'current: no release with a virtualenv'
        venv=$(cat -- '/srv/it'"'"'s here/current/.fabdjango/venv')
        "$venv"/bin/python -c 'import importlib.metadata as m; print('"'"'\n'"'"'.join(sorted({d.metadata['"'"'Name'"'"'] + '"'"'=='"'"' + d.version for d in m.distributions()}, key=str.lower)))'
    """)


def test_freeze_a_release() -> None:
    """Another than the current one."""
    assert venv.find_venv(LAYOUT, RELEASE) == shell("""
        [ -e '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/venv' ] || refuse '7-0123456789ab: no release with a virtualenv'
        venv=$(cat -- '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/venv')
    """)


def test_diff() -> None:
    """The packages of two releases are two reads."""
    assert venv.diff(LAYOUT, "current", RELEASE) == (venv.freeze(LAYOUT), venv.freeze(LAYOUT, RELEASE))


def key(values: dict[str, Any] | None = None, sha: str = SHA, **facts: Any) -> str:
    """The key of a virtualenv with these settings and facts."""
    return venv.key_of(sample_settings(values), sample_facts(**facts), sha)


def test_the_key_is_short_and_lasts() -> None:
    """The same for another commit with the same requirements, and for settings that do not matter."""
    assert key() == key(sha="f" * 40) == key({"branch": "it's", "gunicorn": {"workers": 3}}) == key(home="/it's")
    assert len(key()) == 16


@pytest.mark.parametrize(
    "values",
    [
        {"packages": ["it's"]},
        {"bootstrap": ["it's"]},
        {"extras": ["it-is"]},
        {"groups": ["it-is"]},
        {"options": ["it's"]},
        {"index_url": "it's"},
        {"extra_index_urls": ["it's"]},
        {"find_links": ["it's"]},
        {"no_index": True},
        {"install_project": True},
    ],
)
def test_settings_that_change_the_key(values: dict[str, Any]) -> None:
    """Whatever decides what is installed."""
    assert key({"venv": values}) != key()


@pytest.mark.parametrize(
    "facts",
    [
        {"requirements": {"sources": ["requirements.txt"], "digest": "it's other"}},
        {"requirements": {"sources": ["it's.txt"], "digest": "d" * 64}},
        {"python": {**sample_facts().python, "version": "3.12.1"}},
        {"python": {**sample_facts().python, "path": "/opt/it's/python3"}},
        {"python": {**sample_facts().python, "platform": "linux-aarch64"}},
    ],
)
def test_facts_that_change_the_key(facts: dict[str, Any]) -> None:
    """Other files, another Python, another machine."""
    assert key(**facts) != key()


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"venv": {"install_project": True, "packages": ["it's"]}}, {}),
        ({}, {"requirements": {"sources": ["setup.py"], "digest": "it's"}}),
        ({"venv": {"installer": "pip"}}, {"requirements": {"sources": ["pyproject.toml"], "digest": "it's"}}),
        ({}, {"requirements": {"sources": ["requirements.txt"], "digest": "it's", "local": True}}),
    ],
)
def test_a_virtualenv_that_holds_the_project(values: dict[str, Any], facts: dict[str, Any]) -> None:
    """It is that commit's own."""
    assert key(values, **facts) != key(values, sha="f" * 40, **facts)


@pytest.mark.parametrize(
    ("values", "facts", "message", "cure"),
    [
        (
            {},
            {"requirements": {"sources": ["a.txt"], "missing": ["it's.txt"]}},
            "the commit has no file it's.txt, which the requirements name",
            "check fabdjango.venv.requirements, and the -r lines of the files there",
        ),
        (
            {},
            {"programs": {}, "python": {"version": "3.11", "ensurepip": False, "path": "it's"}},
            "the host's Python cannot make virtualenvs: python3-venv is missing",
            "on the host, as root: apt-get install python3-venv",
        ),
        (
            {"venv": {"installer": "pip", "packages": ["it's"]}},
            {"requirements": {"sources": ["uv.lock"], "missing": []}},
            "uv.lock can only be installed by uv, and fabdjango.venv.installer is pip",
            "set fabdjango.venv.installer to auto, or fabdjango.venv.requirements to another file",
        ),
    ],
)
def test_what_cannot_be_built(values: dict[str, Any], facts: dict[str, Any], message: str, cure: str) -> None:
    """It is told before anything is made."""
    with pytest.raises(FabdjangoError) as caught:
        venv.refuse_hopeless(sample_settings(values), sample_facts(**facts), "web1")
    assert (caught.value.message, caught.value.cure, caught.value.host) == (message, cure, "web1")
