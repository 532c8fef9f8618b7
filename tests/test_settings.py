"""What is written in the files reaches the server as it is, or is refused with the file and the key."""

from __future__ import annotations

import dataclasses
import http.client
import itertools
import json
import os
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from supervisor.options import UnhosedConfigParser  # type: ignore[import-untyped]

from fabdjango import recipes, switchover
from fabdjango.commands import database, django
from fabdjango.configuration import Layer, Resolved, environment_layer, resolve
from fabdjango.escape import Secret
from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.layout import layout_of
from fabdjango.plan import Phase, Put, Step
from fabdjango.recipes import ANY_MIGRATION, Deployment, Private, Site
from fabdjango.render import Templates
from fabdjango.script import render_script
from fabdjango.settings import SecretSource, environment_name, setting_rows
from tests.conftest import KEY, sample_facts, sample_templates
from tests.test_escape import HOSTILE, special

REQUIRED = {"project": "blog", "repository": "git@example.com:it's/blog.git"}


def resolved(*layers: Mapping[str, Any], stage: str = "", host: str = "", required: bool = True) -> Resolved:
    """Layers called one.yaml, two.yaml…, above a file with what is required."""
    names = ("one.yaml", "two.yaml", "three.yaml")
    base = [Layer("base.yaml", REQUIRED)] if required else []
    named = [Layer(name, values) for name, values in zip(names, layers, strict=False)]
    return resolve([*base, *named], stage=stage, host=host)


def refused(*layers: Mapping[str, Any], **more: Any) -> tuple[str, str]:
    """Message and cure of the ConfigError that these layers end in."""
    with pytest.raises(ConfigError) as caught:
        resolved(*layers, **more)
    return caught.value.message, caught.value.cure


# --- layers ---------------------------------------------------------------------


def test_defaults() -> None:
    """A site needs a name and a repository, and nothing else."""
    found = resolved()
    assert found.settings.branch == "main"
    assert found.settings.root == "/srv/{project}"
    assert found.settings.venv.packages == ("gunicorn",)
    assert found.settings.environment == {}
    assert found.sources == {"project": "base.yaml", "repository": "base.yaml"}


def test_later_layers_win() -> None:
    """Mappings merge at every depth, lists and values replace, and null is the default."""
    found = resolved(
        {"branch": "it's", "venv": {"packages": ["a", "b"], "timeout": 5}, "environment": {"A": "1 2", "B": "2"}},
        {"branch": "main's", "venv": {"packages": ["c d"]}, "environment": {"B": "it's"}},
        {"environment": {"C": "3"}, "django": None, "keep_releases": None},
    ).settings
    assert (found.branch, found.venv.packages, found.venv.timeout) == ("main's", ("c d",), 5)
    assert found.environment == {"A": "1 2", "B": "it's", "C": "3"}
    assert (found.keep_releases, found.django.manage) == (5, "manage.py")


def test_a_secret_is_replaced_as_a_whole() -> None:
    """It is had from one place; a word for a whole entry counts as one."""
    found = resolved(
        {"secrets": {"A": {"command": "pass show 'it is'"}, "B": {"generate": 20}, "C": "generate"}},
        {
            "secrets": {"A": {"file": "it's"}, "C": {"variable": "X"}},
            "stages": {"prod": {"secrets": {"B": "generate"}}},
        },
        stage="prod",
    ).settings.secrets
    assert found == {"A": SecretSource(file="it's"), "B": SecretSource(generate=50), "C": SecretSource(variable="X")}


@pytest.mark.parametrize("entry", ["hunter2", {"generate": "hunter2"}, {"file": ["hunter2"]}, ["hunter2"]])
def test_a_secret_that_is_written_down_itself_is_not_repeated(entry: Any) -> None:
    """What stands in the place of its source may well be the value."""
    message, cure = refused({"secrets": {"A": entry}})
    assert "fabdjango.secrets.A" in message
    assert message.endswith("not ******** (in one.yaml)")
    assert "hunter2" not in cure


def test_every_value_knows_its_source() -> None:
    """The file that wrote a value last, and within it the stage, role or host."""
    found = resolved(
        {"branch": "it's", "gunicorn": {"timeout": 5, "threads": 2}},
        {
            "gunicorn": {"timeout": 6},
            "stages": {"it's staging": {"branch": "develop", "hosts": {"web 1": {"roles": ["web"], "user": "ada"}}}},
            "roles": {"web": {"gunicorn": {"workers": 3}}},
        },
        stage="it's staging",
        host="web 1",
    )
    assert {
        key: found.sources[key] for key in ("branch", "gunicorn.timeout", "gunicorn.threads", "gunicorn.workers")
    } == {
        "branch": "two.yaml, stages.it's staging",
        "gunicorn.timeout": "two.yaml",
        "gunicorn.threads": "one.yaml",
        "gunicorn.workers": "two.yaml, roles.web",
    }
    assert found.sources["user"] == "two.yaml, stages.it's staging, hosts.web 1"
    assert (found.settings.user, found.settings.gunicorn.workers) == ("ada", "3")


def test_the_order_of_stage_role_and_host() -> None:
    """A stage wins over the file, a role over the stage, the later role over the earlier, the host over all."""
    everything = {"branch": "file", "user": "file", "python": "file", "root": "/file", "keep_releases": 1}
    found = resolved(
        {
            **everything,
            "stages": {"prod": {"user": "stage", "python": "stage", "root": "/stage", "keep_releases": 2}},
            "roles": {
                "web": {"python": "it's web", "root": "/it's web", "keep_releases": 3},
                "primary": {"root": "/it's primary", "keep_releases": 4},
            },
            "hosts": {"web1.example.com": {"roles": ["web", "primary", "unknown"], "keep_releases": 5}},
        },
        stage="prod",
        host="web1.example.com",
    ).settings
    assert (found.branch, found.user, found.python) == ("file", "stage", "it's web")
    assert (found.root, found.keep_releases) == ("/it's primary", 5)


def test_the_inventory() -> None:
    """The hosts of the stage if it has its own, else those of the file, and the names of the stages; a host may be empty."""
    stages = {"it's": {"hosts": {"d": {}}}, "plain": {"branch": "develop"}}
    layer = {"hosts": {"a b": None, "c": {"user": "ada"}}, "stages": stages}
    found = resolved(layer, stage="it's")
    assert [host.name for host in found.hosts] == ["d"]
    assert (found.stage, found.stages, found.confirm) == ("it's", ("it's", "plain"), False)
    assert found.elsewhere == {"a b": ("",), "c": ("",)}
    assert [host.name for host in resolved(layer, stage="plain").hosts] == ["a b", "c"]
    assert [host.name for host in resolved(layer).hosts] == ["a b", "c"]
    assert resolved({"hosts": None, "roles": None, "stages": None}).hosts == ()


def test_a_host_that_is_not_listed() -> None:
    """Its settings are those of all."""
    assert resolved({"branch": "it's", "hosts": {"a": {"branch": "other"}}}, host="b").settings.branch == "it's"


def test_an_unknown_stage() -> None:
    """The cure is the name that was meant, or where to define it."""
    stages: dict[str, Any] = {"stages": {"production": {}}}
    assert refused(stages, stage="produktion") == ("there is no stage 'produktion'", "did you mean production?")
    assert refused(stages, stage="it's") == (
        'there is no stage "it\'s"',
        "define it in fabric.yaml under fabdjango: stages:",
    )


# --- keys ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message", "cure"),
    [
        ({"brunch": "it's"}, "fabdjango.brunch is not a setting (in one.yaml)", "did you mean branch?"),
        ({"it's": 1}, "fabdjango.it's is not a setting (in one.yaml)", "see all of them with: fab config"),
        ({"host": {}}, "fabdjango.host is not a setting (in one.yaml)", "did you mean hosts or hooks?"),
        ({1: "it's"}, "fabdjango.1 is not a setting (in one.yaml)", "see all of them with: fab config"),
        (
            {"gunicorn": {"worker": 2}},
            "fabdjango.gunicorn.worker is not a setting (in one.yaml)",
            "did you mean workers or worker_class?",
        ),
        (
            {"processes": {"it-is": {"command": "sleep 1", "stop_timeut": 2}}},
            "fabdjango.processes.it-is.stop_timeut is not a setting (in one.yaml)",
            "did you mean stop_timeout?",
        ),
        (
            {"stages": {"it's": {"brunch": 1}}},
            "fabdjango.stages.it's.brunch is not a setting (in one.yaml)",
            "did you mean branch?",
        ),
        (
            {"stages": {"it's": {"django": {"mange": 1}}}},
            "fabdjango.stages.it's.django.mange is not a setting (in one.yaml)",
            "did you mean manage?",
        ),
        (
            {"stages": {"it's": {"hosts": {"a b": {"usr": 1}}}}},
            "fabdjango.stages.it's.hosts.a b.usr is not a setting (in one.yaml)",
            "did you mean user?",
        ),
        (
            {"roles": {"web": {"usr": 1}}},
            "fabdjango.roles.web.usr is not a setting (in one.yaml)",
            "did you mean user?",
        ),
        (
            {"roles": {"web": {"venv": {"pakages": 1}}}},
            "fabdjango.roles.web.venv.pakages is not a setting (in one.yaml)",
            "did you mean packages?",
        ),
        (
            {"hosts": {"it's": {"role": "web"}}},
            "fabdjango.hosts.it's.role is not a setting (in one.yaml)",
            "did you mean roles?",
        ),
        (
            {"hosts": {"it's": {"health": {"pth": "/"}}}},
            "fabdjango.hosts.it's.health.pth is not a setting (in one.yaml)",
            "did you mean path?",
        ),
    ],
)
def test_a_misspelt_key(values: Mapping[str, Any], message: str, cure: str) -> None:
    """At every level, also of stages, roles and hosts that are not chosen now: they would fail when they are needed."""
    assert refused(values) == (message, cure)


@pytest.mark.parametrize(
    ("path", "key", "help"),
    [
        ("project", "fabdjango:\n  project: blog", "name of the site, used in paths and program names."),
        (
            "repository",
            "fabdjango:\n  repository: git@example.com:team/blog.git",
            "what git clones from, as seen from the host.",
        ),
    ],
)
@pytest.mark.parametrize("nothing", [{}, {"project": None, "repository": None}, {"project": "", "repository": ""}])
def test_a_required_key(path: str, key: str, help: str, nothing: Mapping[str, Any]) -> None:
    """What is missing, and three ways to give it, each to copy."""
    given_values = {name: text for name, text in REQUIRED.items() if name != path}
    message, cure = refused({**nothing, **given_values}, required=False)
    value = key.rpartition(": ")[2]
    call = {"project": 'site("blog", …)', "repository": f'site("blog", repository="{value}", …)'}[path]
    assert message == f"fabdjango.{path} is not set: {help}"
    assert cure == (
        f"write it in fabric.yaml beside your fabfile:\n\n{key}\n\n"
        f"or in the environment:  FABRIC_FABDJANGO_{path.upper()}='{value}'\n"
        f"or in the fabfile:      ns = fabdjango.{call}"
    )


def test_no_repository_is_needed_where_commits_are_pushed() -> None:
    """It is the operator's clone then that commits come from."""
    found = resolved({"project": "blog", "git": {"transfer": "push", "clone": "it's here"}}, required=False)
    assert (found.settings.repository, found.settings.git.clone) == ("", "it's here")
    assert refused({"project": "blog", "git": {"transfer": "pull"}}, required=False)[0] == (
        "fabdjango.repository is not set: what git clones from, as seen from the host."
    )


def test_a_required_key_of_a_process() -> None:
    """There is no variable for it, so none is named."""
    assert refused({"processes": {"it": {"startsecs": 1}}}) == (
        "fabdjango.processes.it.command is not set: shell command line; the virtualenv's programs come first in PATH.",
        (
            "write it in fabric.yaml beside your fabfile:\n\n"
            "fabdjango:\n  processes:\n    it:\n      command: celery -A blog worker\n\n"
            'or in the fabfile:      ns = fabdjango.site("blog", processes__it__command="celery -A blog worker", …)'
        ),
    )


# --- forms -----------------------------------------------------------------------

QUOTE_IT = "text (quote it, if YAML takes it for something else)"


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("branch", True, QUOTE_IT),
        ("branch", 1.1, QUOTE_IT),
        ("branch", ["it's"], QUOTE_IT),
        ("branch", {"it's": 1}, QUOTE_IT),
        ("branch", b"it's", QUOTE_IT),
        ("branch", "it's\nhere", "one line without control characters"),
        ("branch", "it's\u2028here", "one line without control characters"),
        ("branch", "a\0b", "text without NUL characters"),
        ("branch", "\udcff", "text without NUL characters"),
        ("project", "it's", "text like [a-z0-9][a-z0-9_-]{0,40}"),
        ("gunicorn.workers", "many", r"text like auto|[1-9]\d{0,3}"),
        ("health.path", "it's", "a path as in a request line: ASCII, spaces as %20"),
        ("keep_releases", "it's", "a whole number"),
        ("keep_releases", True, "a whole number"),
        ("keep_releases", 1.0, "a whole number"),
        ("keep_releases", [1], "a whole number"),
        ("keep_releases", 0, "1 or more"),
        ("keep_releases", "9999999999", "a whole number"),
        ("venv.no_index", "it's", "true or false"),
        ("venv.no_index", 2, "true or false"),
        ("venv.no_index", [], "true or false"),
        ("venv.installer", "it's", "one of auto, uv, pip"),
        ("venv.installer", ["uv"], "one of auto, uv, pip"),
        ("health.https", "maybe", "one of auto, yes, no"),
        ("shared", {"it's": 1}, "a list"),
        ("shared", True, "a list"),
        ("shared", 1.5, "a list"),
        ("shared", [None], QUOTE_IT),
        ("shared", [["it's"]], QUOTE_IT),
        ("health.expect", ["it's"], "a whole number"),
        ("environment", ["A=it's"], "a mapping"),
        ("environment", "it's", "a mapping"),
        ("environment", {"A'": "b"}, "names made of letters, digits, _ and -"),
        ("environment", {1: "it's"}, "names made of letters, digits, _ and -"),
        ("gunicorn", "it's", "a mapping"),
        ("gunicorn.options", "it's", "a mapping"),
        ("processes", ["it's"], "a mapping"),
        ("hosts", ["it's"], "a mapping"),
        ("roles", "it's", "a mapping"),
        ("stages", "it's", "a mapping"),
    ],
)
def test_a_value_of_the_wrong_form(path: str, value: Any, wanted: str) -> None:
    """The key, what it must be, what it is, and the file, and nothing that a program says."""
    shown = next(iter(value)) if wanted.startswith("names") else value
    shown = shown[0] if isinstance(shown, list) and path in ("shared", "health.expect") else shown
    assert refused(nested(path, value)) == (
        f"fabdjango.{path} must be {wanted}, not {shown!r} (in one.yaml)",
        f"change fabdjango.{path} in one.yaml",
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hosts": {"it's": 5}}, "fabdjango.hosts.it's must be a mapping, not 5 (in one.yaml)"),
        ({"roles": {"it's": ["a"]}}, "fabdjango.roles.it's must be a mapping, not ['a'] (in one.yaml)"),
        ({"stages": {"it's": "a"}}, "fabdjango.stages.it's must be a mapping, not 'a' (in one.yaml)"),
        (
            {"hosts": {1: {}}},
            "fabdjango.hosts must be a mapping by names (quote one that YAML takes for a number), not 1 (in one.yaml)",
        ),
        ({"processes": {"a": "it's"}}, 'fabdjango.processes.a must be a mapping, not "it\'s" (in one.yaml)'),
        ({"environment": {"A": ["it's"]}}, f'fabdjango.environment.A must be {QUOTE_IT}, not ["it\'s"] (in one.yaml)'),
        ({"hooks": {"it": {"a": "it's"}}}, "fabdjango.hooks.it must be a list, not {'a': \"it's\"} (in one.yaml)"),
    ],
)
def test_a_wrong_form_further_down(values: Mapping[str, Any], message: str) -> None:
    """The key is named in full."""
    assert refused(values)[0] == message


def test_the_roles_of_a_host() -> None:
    """One name or a list of names."""
    roles = {"roles": {"it's": {"user": "ada"}}}
    assert resolved({**roles, "hosts": {"a": {"roles": "it's"}}}, host="a").settings.user == "ada"
    message, _ = refused({**roles, "hosts": {"a": {"roles": {"it's": 1}}}}, host="a")
    assert message == 'fabdjango.hosts.a.roles must be a list of names, not {"it\'s": 1} (in one.yaml)'


def test_a_file_that_is_no_mapping() -> None:
    """As when somebody writes only the root key and a word."""
    assert refused("it's")[0] == 'fabdjango must be a mapping of settings, not "it\'s" (in one.yaml)'  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["venv.index_url", "venv.extra_index_urls"])
def test_a_wrong_secret_is_not_shown(path: str) -> None:
    """The address of an index may hold a password."""
    value = {"https://ada:it's-secret@example.com": 1}
    message, cure = refused(nested(path, value))
    assert "********" in message
    assert "secret" not in message + cure


def test_values_that_are_taken_as_they_are_meant() -> None:
    """A number where text is wanted, text where a number is, a single word where a list is, and YAML's yes and no."""
    found = resolved(
        {
            "branch": 12,
            "keep_releases": "7",
            "shared": "it's media/",
            "venv": {"no_index": "yes", "install_project": "FALSE"},
            "health": {"https": True, "expect": 204},
            "environment": {"PORT": 8000},
            "gunicorn": {"workers": 3, "options": {"forwarded_allow_ips": "*", "limit_request_line": 0, "x": None}},
        }
    ).settings
    assert (found.branch, found.keep_releases, found.shared) == ("12", 7, ("it's media/",))
    assert (found.venv.no_index, found.venv.install_project) == (True, False)
    assert (found.health.https, found.health.expect, found.environment) == ("yes", (204,), {"PORT": "8000"})
    assert found.gunicorn.options == {"forwarded_allow_ips": "*", "limit_request_line": 0, "x": None}


def test_values_of_several_lines() -> None:
    """The environment and shell commands may have several lines; nothing else."""
    lines = "it's\n\tone\n"
    found = resolved(
        {
            "environment": {"KEY": lines},
            "first_deploy": [lines],
            "hooks": {"before_check": lines},
            "processes": {"it": {"command": lines}},
        }
    ).settings
    assert (found.environment, found.first_deploy, found.hooks) == (
        {"KEY": lines},
        (lines,),
        {"before_check": (lines,)},
    )
    assert found.processes["it"].command == lines


# --- the environment ------------------------------------------------------------


def test_variables() -> None:
    """Every setting but a mapping has a variable; lists are separated by commas; others are left alone."""
    layer = environment_layer(
        {
            "FABRIC_FABDJANGO_BRANCH": "it's",
            "FABRIC_FABDJANGO_VENV_NO_INDEX": "false",
            "FABRIC_FABDJANGO_VENV_INDEX_URL": "https://example.com/a b",
            "FABRIC_FABDJANGO_SHARED": "media/, it's here ,,",
            "FABRIC_FABDJANGO_HEALTH_EXPECT": "200,204",
            "FABRIC_FABDJANGO_KEEP_RELEASES": "3",
            "FABRIC_FABDJANGO_STAGE": "it's not a setting",
            "FABRIC_RUN_ECHO": "1",
            "HOME": "/home/ada",
        }
    )
    assert layer.source == "the environment"
    found = resolve([Layer("base.yaml", {**REQUIRED, "venv": {"no_index": True}}), layer])
    venv, health = found.settings.venv, found.settings.health
    assert (found.settings.branch, venv.no_index, venv.index_url) == ("it's", False, "https://example.com/a b")
    assert (found.settings.shared, health.expect, found.settings.keep_releases) == (
        ("media/", "it's here"),
        (200, 204),
        3,
    )
    assert found.sources["venv.no_index"] == "the environment"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("0", False),
        ("no", False),
        ("OFF", False),
        ("False", False),
        ("", False),
        ("1", True),
        ("Yes", True),
        ("on", True),
    ],
)
def test_truth_in_a_variable(word: str, *, value: bool) -> None:
    """Invoke takes =false for true; we do not."""
    layer = environment_layer({"FABRIC_FABDJANGO_DJANGO_CHECK_DEPLOY": word})
    assert resolve([Layer("base.yaml", REQUIRED), layer]).settings.django.check_deploy is value


@pytest.mark.parametrize(
    ("name", "message", "cure"),
    [
        (
            "FABRIC_FABDJANGO_BRUNCH",
            "the environment variable FABRIC_FABDJANGO_BRUNCH is not a setting",
            "did you mean FABRIC_FABDJANGO_BRANCH?",
        ),
        (
            "FABRIC_FABDJANGO_IT'S VERY FAR FROM ANYTHING",
            "the environment variable FABRIC_FABDJANGO_IT'S VERY FAR FROM ANYTHING is not a setting",
            "unset it, or see the settings with: fab config",
        ),
        (
            "FABRIC_FABDJANGO_ENVIRONMENT",
            "fabdjango.environment is a mapping and cannot be set by the environment variable FABRIC_FABDJANGO_ENVIRONMENT",
            "write it in fabric.yaml: fabdjango: environment:",
        ),
    ],
)
def test_an_unknown_variable(name: str, message: str, cure: str) -> None:
    """It is refused, as a key in a file would be."""
    with pytest.raises(ConfigError) as caught:
        environment_layer({name: "it's"})
    assert (caught.value.message, caught.value.cure) == (message, cure)


def test_no_two_settings_share_a_variable() -> None:
    """Two keys whose names flatten to the same variable would crash every run of Invoke, and confuse ours."""
    count = Counter(environment_name(row.key) for row in setting_rows())
    assert [name for name, times in count.items() if times > 1] == []


def test_every_setting_is_described() -> None:
    """One sentence each, as the README's table shows it, and a default of the form that it asks for."""
    for row in setting_rows():
        assert row.help.endswith("."), row.key
        assert row.help[0].isalnum(), row.key
    defaults = {row.key: row.default for row in setting_rows() if not row.required and "*" not in row.key}
    layer: dict[str, Any] = {}
    for key, value in defaults.items():
        merge(layer, nested(key, value))
    assert resolved(layer).settings == resolved().settings


# --- hostile values --------------------------------------------------------------


def nested(path: str, value: Any) -> dict[str, Any]:
    """``value`` at a dotted path, as a file would have it."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Put ``values`` into a nested mapping."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


TEMPLATES = sample_templates()
RECORD = """#!/bin/dash
{ printf '%s\\0' "$#" "$0" "$@" "$(pwd -P)"; /usr/bin/env -0; printf 'END\\0'; } >>"$RECORD"
"""


@dataclass(frozen=True)
class Call:
    """One start of a program: its words, its working directory, its environment."""

    words: list[str]
    directory: str
    environ: dict[str, str]


class Workshop:
    """A folder with a recorder in the place of every program, and the site of some settings planned in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        self.record = self.bin / "record"
        self.recorder(self.bin / "timeout")

    def recorder(self, path: Path) -> None:
        """Put a program at ``path`` that writes down how it is started."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RECORD)
        path.chmod(0o755)

    def calls(self, script: str, *, path: str = "") -> list[Call]:
        """The programs that ``script`` starts, run by dash with the recorders first in PATH."""
        self.record.write_bytes(b"")
        environ = {"PATH": path or f"{self.bin}:/usr/bin:/bin", "RECORD": str(self.record), "HOME": str(self.folder)}
        prelude = "umask 022; refuse() { exit 1; }; unchanged() { exit 0; }; note() { :; }\n"
        subprocess.run(
            ["/usr/bin/dash"], input=(prelude + script).encode(), env=environ, capture_output=True, check=False, cwd="/"
        )
        calls = []
        told = iter(self.record.read_bytes().decode().split("\0")[:-1])
        for count in told:
            words = [next(told) for _ in range(int(count) + 1)]
            directory = next(told)
            pairs = itertools.takewhile("END".__ne__, told)
            calls.append(Call(words, directory, dict(pair.partition("=")[::2] for pair in pairs)))
        return calls

    def call(self, script: str) -> Call:
        """The only program that ``script`` starts."""
        (call,) = self.calls(script)
        return call


@dataclass(frozen=True)
class Planned:
    """A site with hostile settings, planned to its last step."""

    workshop: Workshop
    plan: Deployment
    phases: tuple[Phase, ...]

    @property
    def settings(self) -> Any:
        """The settings of the site."""
        return self.plan.site.settings

    def step(self, name: str) -> Step:
        """The first step called ``name``."""
        return next(step for phase in self.phases for step in phase.steps if step.name == name)

    def steps(self, name: str) -> list[Step]:
        """Every step called ``name``."""
        return [step for phase in self.phases for step in phase.steps if step.name == name]

    def put(self, name: str) -> Put:
        """The file called ``name`` of the release."""
        return next(put for put in self.plan.private if put.path.name == name)

    def write(self) -> Path:
        """The release's own files on disk, with recorders for its Python and its shell; the path of its folder."""
        for put in self.plan.private:
            path = Path(put.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(put.content.encode())
        (Path(self.plan.path) / PurePosixPath(self.settings.django.manage).parent).mkdir(parents=True, exist_ok=True)
        for program in ("python", "sh"):
            self.workshop.recorder(Path(self.plan.layout.venv(self.plan.key)) / "bin" / program)
        return Path(self.plan.path) / ".fabdjango"

    def started(self, name: str) -> Call:
        """How the program behind the start script ``name`` is started."""
        return self.workshop.call(f"exec /bin/sh {shlex.quote(str(self.write() / name))}")

    def installed(self) -> list[Call]:
        """The installer's runs."""
        self.write()
        return self.workshop.calls(self.step("install").body)

    def configured(self) -> dict[str, Any]:
        """gunicorn's settings as gunicorn reads them: by running the file."""
        found: dict[str, Any] = {}
        exec(compile(self.put("gunicorn.conf.py").content, "gunicorn.conf.py", "exec"), found)  # noqa: S102 - gunicorn does
        return found


def planned(folder: Path, values: Mapping[str, Any], **facts: Any) -> Planned:
    """Plan a deployment with ``values`` below the root key; raises the ConfigError that refuses them."""
    workshop = Workshop(folder)
    root = str(folder / "it's here")
    given_values: dict[str, Any] = {**REQUIRED, "root": root}
    merge(given_values, values)
    own = resolve([Layer("fabric.yaml", given_values)]).settings
    recipes.check_hooks(own)
    layout = layout_of(own)
    site = Site(own, layout, TEMPLATES, host="web1", holder="it's me")
    survey = recipes.survey(site, own.branch)
    found = sample_facts(root=str(layout.root), **{"home": str(folder), **facts})
    plan = recipes.deployment(site, found, own.branch)
    phases = (survey, recipes.prepare(plan), switchover.activate(plan, ANY_MIGRATION), recipes.tidy(plan))
    return Planned(workshop, plan, phases)


def with_lock(lock: str) -> dict[str, Any]:
    """Facts of a commit that is installed from ``lock``."""
    return {"requirements": {"sources": [lock], "missing": [], "digest": "d", "hashed": False}}


def after(words: Sequence[str], word: str) -> list[str]:
    """What follows ``word`` in an argv, each time."""
    return [words[at + 1] for at, each in enumerate(words[:-1]) if each == word]


def linked(it: Planned) -> list[str]:
    """The paths of the release that really are links into shared, after the step has run."""
    it.write()
    it.workshop.calls(it.step("links").body, path="/usr/bin:/bin")
    release, shared = Path(it.plan.path), Path(it.plan.layout.shared)
    return [
        text
        for text in it.settings.shared
        if (release / text.rstrip("/")).is_symlink()
        and (release / text.rstrip("/")).readlink() == shared / text.rstrip("/")
    ]


def requested(it: Planned, key: str) -> str:
    """A health parameter, once Python's HTTP client has taken it into a request."""
    value = str(it.step("health").parameters[key])
    link = http.client.HTTPConnection("localhost")
    link.putrequest("GET", value if key == "path" else "/", skip_host=True)
    link.putheader("Host", value)
    return value


def supervised(it: Planned) -> list[str]:
    """The folders of programs and logs that supervisor reads, from both kinds of supervisord."""
    parser = UnhosedConfigParser()
    parser.read_string(it.plan.manager.files[0].content)
    ours = {"process_num": ord("b")}
    command = parser.saneget("fcgi-program:blog-web-8000", "command", expansions=ours)
    log = parser.saneget("fcgi-program:blog-web-8000", "stdout_logfile", expansions=ours)
    assert log == str(it.plan.layout.logs / "blog-web-b.log")
    shell, script, *rest = shlex.split(command)
    assert (shell, script, rest) == ("/bin/sh", str(it.plan.layout.slot_starter), ["b", "0"])
    return [str(PurePosixPath(script).parent.parent)]


def in_unit(it: Planned, name: str) -> list[str]:
    """The value of a line in every unit of the site that runs a program, as systemd takes it: %% is a %."""
    texts = [put.content for put in it.plan.manager.files if "\nUser=" in put.content]
    lines = [line for text in texts for line in text.split("\n") if line.startswith(f"{name}=")]
    assert len(lines) == len(texts)
    return [line.partition("=")[2].replace("%%", "%") for line in lines]


def timed(it: Planned) -> str:
    """The value of the timer's line."""
    (put,) = [put for put in it.plan.manager.files if put.path.suffix == ".timer"]
    (line,) = [line for line in put.content.split("\n") if line.startswith("OnCalendar=")]
    return line.partition("=")[2].replace("%%", "%")


def job_words(it: Planned) -> list[str]:
    """What runs under the limit of time, from that on."""
    Path(it.plan.layout.jobs).mkdir(parents=True)
    return it.started("job-it").words[1:]


def joined(text: str) -> str:
    """Words as a person may write them in one string; what is none stays."""
    try:
        return shlex.join(shlex.split(text))
    except ValueError:
        return text


def rooted(it: Planned) -> str:
    """The root as the start script's working directory, gunicorn and supervisor have it."""
    call = it.started("web")
    root = str(it.plan.layout.root)
    release = f"{root}/releases/{it.plan.release}"
    assert call.words[0] == f"{root}/venvs/{it.plan.key}/bin/python"
    assert call.words[1:] == ["-m", "gunicorn", "-c", f"{release}/.fabdjango/gunicorn.conf.py"]
    assert (call.directory, call.environ["PYTHONPATH"]) == (release, release)
    assert it.configured()["chdir"] == release
    (found,) = supervised(it)
    return found


OWN = {"own_supervisord": True, "programs": {"uv": "/usr/bin/uv", "supervisord": "/usr/bin/supervisord"}}


@dataclass(frozen=True)
class Case:
    """Where one setting arrives: how a value is dressed for it, what the facts are, and what is found there."""

    arrived: Callable[[Planned], Any]
    dress: Callable[[Any], Any] = lambda value: value
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def uv_words(it: Planned) -> list[str]:
    """All words of all runs of the installer."""
    return [word for call in it.installed() for word in call.words]


def made(it: Planned) -> Mapping[str, Any]:
    """What the program that makes the database is told, as JSON brings it there."""
    (step,) = database.create(it.settings, it.plan.layout)
    found: Mapping[str, Any] = json.loads(json.dumps(step.parameters, default=Secret.reveal))
    return found


def is_text(row: Any) -> bool:
    """True for a setting that holds text in some way."""
    return row.kind is str or "[str" in str(row.kind) or "Mapping" in str(row.kind)


# Every setting that is text, a list or a mapping of text. None: it is not for the host, and checked elsewhere.
ARRIVALS: dict[str, Case | None] = {
    "project": Case(lambda it: it.started("web") and it.configured()["proc_name"]),
    # ~ alone means a folder at home, on the host.
    "repository": Case(
        lambda it: it.workshop.call(it.step("fetch").body).words[-3], dress=lambda value: value.lstrip("~")
    ),
    "branch": Case(lambda it: it.step("survey").parameters["ref"]),
    "root": Case(rooted, dress=lambda value: str(PurePosixPath(f"/tmp/{os.getpid()}-it's/{value}")), facts=OWN),  # noqa: S108 - a name
    "user": None,
    "run_as": None,
    # A number of hosts is the operator's own business.
    "activation.batch": None,
    "python": Case(lambda it: it.step("survey").parameters["python"]),
    "shared": Case(linked),
    "environment": Case(
        lambda it: {name: it.started("web").environ.get(name) for name in it.settings.environment},
        dress=lambda value: {"IT_IS": value, "_X1": value},
    ),
    "env_file": None,
    "local_settings": None,
    # Where values are had from on the operator's side is held to its rules in tests/test_secret_sources.py.
    **dict.fromkeys(row.key for row in setting_rows() if row.key.startswith("secrets") and is_text(row)),
    "local_settings_path": Case(
        lambda it: str(
            PurePosixPath(shlex.split(it.step("link-settings").body.splitlines()[-1])[-1]).relative_to(it.plan.path)
        )
    ),
    "first_deploy": Case(lambda it: [it.workshop.call(step.body).words[-1] for step in it.steps("first-deploy")[:-1]]),
    "hooks": Case(
        lambda it: {"before_switch": [it.workshop.call(step.body).words[-1] for step in it.steps("before_switch")]},
        dress=lambda value: {"before_switch": [value, value]},
    ),
    # A folder of the operator's, in which git is started.
    "git.clone": None,
    "venv.requirements": Case(lambda it: list(it.step("survey").parameters["requirements"])),  # type: ignore[call-overload]
    "venv.packages": Case(lambda it: (words := it.installed()[-1].words)[words.index("--") + 1 :]),
    "venv.bootstrap": Case(lambda it: (words := it.installed()[0].words)[words.index("--") + 1 :]),
    "venv.extras": Case(lambda it: after(uv_words(it), "--extra"), facts=with_lock("uv.lock")),
    "venv.groups": Case(lambda it: after(uv_words(it), "--group"), facts=with_lock("uv.lock")),
    "venv.index_url": Case(lambda it: it.installed()[0].environ["PIP_INDEX_URL"]),
    "venv.extra_index_urls": Case(lambda it: it.installed()[0].environ["PIP_EXTRA_INDEX_URL"].split(" ")),
    "venv.find_links": Case(
        lambda it: (env := it.installed()[0].environ)["PIP_FIND_LINKS"].split(" ") and env["UV_FIND_LINKS"].split(",")
    ),
    "venv.options": Case(
        lambda it: (words := it.installed()[0].words)[
            words.index("-r") - len(it.settings.venv.options) : words.index("-r")
        ]
    ),
    "django.settings": Case(lambda it: it.started("web").environ["DJANGO_SETTINGS_MODULE"]),
    "django.manage": Case(
        lambda it: str(
            PurePosixPath(it.started("web").directory).relative_to(it.plan.path)
            / it.workshop.call(django.manage(it.settings, it.plan.path, "check").body.partition("\n")[2]).words[-2]
        ),
        dress=lambda value: f"{value}/manage.py",
    ),
    # Compared with names of migrations, and sent nowhere.
    "django.allow_migrations": None,
    "gunicorn.app": Case(lambda it: it.configured()["wsgi_app"]),
    "gunicorn.bind": Case(lambda it: it.step("answer").parameters["bind"], dress=lambda value: f"unix:/run/{value}"),
    "gunicorn.workers": Case(lambda it: str(it.configured()["workers"])),
    "gunicorn.worker_class": Case(lambda it: it.configured()["worker_class"]),
    "gunicorn.options": Case(
        lambda it: {name: it.configured()[name] for name in it.settings.gunicorn.options},
        dress=lambda value: {"it_is": value, "list_of": [value, {"it's": value}]},
    ),
    "processes": None,
    "processes.*.command": Case(lambda it: it.started("process-it").words[-1]),
    "schedule": None,
    "schedule.*.at": Case(
        timed, facts={"systemd": True}, more={"manager": "systemd", "schedule": {"it": {"shell": "x"}}}
    ),
    "schedule.*.command": Case(
        lambda it: shlex.join(job_words(it)[5:]), dress=joined, more={"schedule": {"it": {"at": "daily"}}}
    ),
    "schedule.*.shell": Case(lambda it: job_words(it)[-1], more={"schedule": {"it": {"at": "daily"}}}),
    "systemd.options": Case(
        lambda it: {"MemoryMax": in_unit(it, "MemoryMax")[0]},
        dress=lambda value: {"MemoryMax": value},
        facts={"systemd": True},
        more={"manager": "systemd"},
    ),
    # Their encoders are held to nginx's grammar in tests/test_escape.py, its file in tests/commands/test_nginx.py.
    **dict.fromkeys(row.key for row in setting_rows() if row.key.startswith("nginx.") and is_text(row)),
    "database.url": Case(
        lambda it: made(it)["values"]["url"],
        dress=lambda value: f"postgres://it%27s:{quote(value, '', errors='replace')}@db.example.com/blog",
        more={"database": {"engine": "postgresql", "server": "elsewhere"}},
    ),
    "database.name": Case(lambda it: made(it)["name"], more={"database": {"engine": "postgresql"}}),
    "database.user": Case(lambda it: made(it)["user"], more={"database": {"engine": "postgresql"}}),
    "database.variables": Case(
        lambda it: made(it)["variables"],
        dress=lambda value: {value: "url"},
        more={"database": {"engine": "postgresql"}},
    ),
    "database.path": Case(
        lambda it: str(PurePosixPath(made(it)["path"]).relative_to(it.plan.layout.shared)),
        dress=lambda value: str(PurePosixPath(value)),
        more={"database": {"engine": "sqlite"}},
    ),
    "database.backup_path": Case(
        lambda it: database.backup(it.settings, it.plan.layout, it.plan.path, "").parameters["folder"],
        dress=lambda value: str(PurePosixPath(f"/it's/{value}")),
    ),
    "health.path": Case(lambda it: requested(it, "path"), dress=lambda value: f"/{value}"),
    "health.text": Case(lambda it: it.step("health").parameters["text"]),
    "health.host": Case(lambda it: requested(it, "host")),
    "health.static": Case(lambda it: it.step("health").parameters["static"]),
    # No deploy takes them; see tests/commands/test_server.py.
    **dict.fromkeys(row.key for row in setting_rows() if row.key.startswith("server.") and is_text(row)),
    "ssh.known_hosts": None,
    "ssh.address": None,
    "ssh.user": None,
    "ssh.key": None,
    "ssh.jump": None,
}


def test_every_setting_of_text_is_here() -> None:
    """A new setting says where it arrives."""
    assert {row.key for row in setting_rows() if is_text(row)} == ARRIVALS.keys()


def assert_arrives(key: str, value: Any, folder: Path) -> str:
    """Assert that ``value`` reaches the server as it is, or is refused; the scripts, if it was not refused."""
    case = ARRIVALS[key]
    assert case is not None
    (row,) = (row for row in setting_rows() if row.key == key)
    if value == row.default:
        return ":"
    is_list = str(row.kind).startswith("tuple")
    value = case.dress([value, "it's"] if is_list and key not in STRICT_LISTS else [value] if is_list else value)
    layer: dict[str, Any] = {}
    merge(layer, nested(key.replace("*", "it"), value))
    merge(layer, case.more)
    try:
        it = planned(folder, layer, **case.facts)
    except FabdjangoError:
        return ""
    assert case.arrived(it) == value
    return "\n".join(render_script(replace(phase, lock=None), run=f"R{n}") for n, phase in enumerate(it.phases))


def assert_reads(*scripts: str) -> None:
    """Assert that sh can read them to their ends."""
    text = "\n".join(scripts).encode()
    checked = subprocess.run(["dash", "-n"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


STRICT_LISTS = {"venv.extras", "venv.groups", "venv.extra_index_urls", "venv.find_links"}


@pytest.mark.parametrize("key", [key for key, case in ARRIVALS.items() if case])
@settings(max_examples=8)
@given(text=st.one_of(special, st.text(max_size=8)))
@example(text="plain")
def test_a_hostile_value_arrives_or_is_refused(key: str, text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever somebody writes: the program on the host gets exactly that, or nobody is asked to connect."""
    assert_reads(assert_arrives(key, text, tmp_path_factory.mktemp("site")))


@pytest.mark.parametrize("key", [key for key, case in ARRIVALS.items() if case])
def test_known_hostile_values_arrive_or_are_refused(key: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The classics, one by one; and it is not that everything is refused."""
    # The name of a socket has 107 bytes at most.
    folder = tmp_path_factory.mktemp("it")
    scripts = [assert_arrives(key, text, folder / str(number)) for number, text in enumerate(HOSTILE)]
    friendly = {
        "django.settings": "it.is",
        "local_settings_path": "it/is.py",
        "gunicorn.app": "it:is",
        "gunicorn.workers": "3",
        "project": "it-is",
    }
    scripts.append(assert_arrives(key, friendly.get(key, "it-is"), folder / "friendly"))
    assert any(scripts)
    assert_reads(*scripts)
    assert not (folder / "owned").exists()


def test_keys_that_are_hostile(tmp_path: Path) -> None:
    """Names of variables, processes, hooks and gunicorn's settings are refused unless they are names."""
    for number, text in enumerate([*HOSTILE, "a-b c", "Ü", "1a", "a.b"]):
        for path in ("environment", "processes", "hooks", "gunicorn.options"):
            with pytest.raises(FabdjangoError):
                planned(
                    tmp_path / f"{path}{number}", nested(path, {text: {"command": "x"} if path == "processes" else "x"})
                )


@pytest.mark.parametrize("name", [*HOSTILE, "-x", "a b", "0ada", "Ada"])
def test_an_account_is_a_name(name: str) -> None:
    """The account goes to su, sudo and supervisor, and none of them gets anything but a name."""
    if name:
        with pytest.raises(ConfigError):
            resolved({"user": name})


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("key", ["env_file", "local_settings"])
def test_a_hostile_local_file_is_found_or_refused(key: str, text: str, tmp_path: Path) -> None:
    """The name of a file on the operator's side is nothing but a name of a file."""
    name = f"it's {text}.j2".replace("/", "_")
    try:
        found = resolved({key: name}).settings
    except ConfigError:
        return
    (tmp_path / name).write_text("A='{{ project }}'\n")
    rendered = Templates(tmp_path, {}).render_project_file(getattr(found, key), key, project="blog")
    assert rendered.text == "A='blog'\n"


@pytest.mark.parametrize("name", ["~nobody at all/x", "~\xfc/x", "nothing/x", "a\n", ""])
def test_a_local_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    """Also for the home of an account that there is not."""
    with pytest.raises(ConfigError, match=r"^fabdjango\.env_file"):
        Templates(tmp_path, {}).render_project_file(name, "env_file")


@settings(max_examples=10)
@given(values=st.dictionaries(st.sampled_from(["ONE", "TWO"]), special))
def test_secrets_of_an_env_file_arrive(values: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the environment file says reaches the program, and stands in no script but as a file's hidden content."""
    folder = tmp_path_factory.mktemp("site")
    it = planned(folder, {"environment": {"ONE": "not this"}, "env_file": "it's.env"})
    env = {name: Secret(text) for name, text in values.items()}
    site = replace(it.plan.site, private=lambda: Private(env_file=env))
    plan = recipes.deployment(site, it.plan.facts, "main")
    it = replace(it, plan=plan, phases=(recipes.prepare(plan),))
    environ = it.started("web").environ
    assert {name: environ[name] for name in values} == values
    for text in filter(lambda text: len(text) > 4, values.values()):
        assert shlex.quote(text) not in render_script(it.phases[0], run="R1")


def test_the_marker_and_the_journal_are_json(tmp_path: Path) -> None:
    """Names with quotes in them do not break what later deploys read."""
    it = planned(tmp_path, {})
    private = it.write()
    it.workshop.calls(it.step("complete").body, path="/usr/bin:/bin")
    marker = json.loads((private / "release.json").read_text())
    assert (marker["by"], marker["venv"], len(KEY)) == ("it's me", it.plan.key, len(it.plan.key))
    it.workshop.calls(it.steps("journal")[-1].body, path="/usr/bin:/bin")
    entry = json.loads(Path(it.plan.layout.journal).read_text())
    assert (entry["by"], entry["event"], entry["result"]) == ("it's me", "deploy", "serves")
