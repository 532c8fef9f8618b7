"""The virtualenv: what goes into it, how it is keyed, how it is built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from fabdjango.escape import Shell, Word, block, env_name, otherwise, quote, quote_path, raw, sh, split_words, when
from fabdjango.exceptions import FabdjangoError
from fabdjango.facts import Facts
from fabdjango.layout import Layout
from fabdjango.plan import Step
from fabdjango.settings import Settings

__all__ = [
    "create_venv",
    "diff",
    "either",
    "find_venv",
    "freeze",
    "get_uv",
    "index_environment",
    "install_package",
    "install_requirements",
    "key_of",
    "mark_complete",
    "read_names",
    "refuse_hopeless",
    "timed",
    "uv_of",
]

_LOCKS = ("uv.lock", "pylock.toml")
_PROJECTS = ("pyproject.toml", "setup.py", "setup.cfg")


def key_of(settings: Settings, facts: Facts, sha: str) -> str:
    """
    The name of the virtualenv: 16 hexadecimal digits of what decides its content.

    A virtualenv that holds the project itself, or a path of the commit, is that commit's own.
    """
    venv = settings.venv
    own = _installs_project(settings, facts) or facts.requirements.get("local")
    parts = {
        "requirements": facts.requirements.get("digest"),
        "sources": facts.requirements.get("sources"),
        "python": [
            facts.python.get("version"),
            facts.python.get("tag"),
            facts.python.get("platform"),
            facts.python.get("path"),
        ],
        "packages": venv.packages,
        "bootstrap": venv.bootstrap,
        "extras": venv.extras,
        "groups": venv.groups,
        "options": venv.options,
        "index": [venv.index_url, venv.extra_index_urls, venv.find_links, venv.no_index],
        "worker": _worker_packages(settings),
        "commit": sha if own else "",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _installs_project(settings: Settings, facts: Facts) -> bool:
    sources = facts.requirements.get("sources", [])
    # pip cannot install what a pyproject.toml depends on without the project itself.
    by_pip = settings.venv.installer == "pip" and "pyproject.toml" in sources
    return settings.venv.install_project or "setup.py" in sources or "setup.cfg" in sources or by_pip


def _worker_packages(settings: Settings) -> tuple[str, ...]:
    asgi = settings.gunicorn.interface == "asgi" and not settings.gunicorn.worker_class
    return ("uvicorn", "uvicorn-worker") if asgi else ()


def uv_of(facts: Facts, layout: Layout) -> PurePosixPath:
    """Where uv is on the host, or will be."""
    return PurePosixPath(facts.programs.get("uv") or layout.tools / "bin" / "uv")


def refuse_hopeless(settings: Settings, facts: Facts, host: str) -> None:
    """Raise FabdjangoError if the virtualenv cannot be built on this host from this commit."""
    missing = facts.requirements.get("missing")
    if missing:
        msg = f"the commit has no file {missing[0]}, which the requirements name"
        raise FabdjangoError(
            msg, host=host, cure="check fabdjango.venv.requirements, and the -r lines of the files there"
        )
    locks = [source for source in facts.requirements.get("sources", []) if source in _LOCKS]
    if locks and settings.venv.installer == "pip":
        msg = f"{locks[0]} can only be installed by uv, and fabdjango.venv.installer is pip"
        raise FabdjangoError(
            msg, host=host, cure="set fabdjango.venv.installer to auto, or fabdjango.venv.requirements to another file"
        )
    if facts.python and not facts.programs.get("uv") and not facts.python.get("ensurepip"):
        msg = "the host's Python cannot make virtualenvs: python3-venv is missing"
        raise FabdjangoError(msg, host=host, cure="on the host, as root: apt-get install python3-venv")


def get_uv(settings: Settings, facts: Facts, layout: Layout) -> Step | None:
    """A virtualenv with uv in it, where the host has none; with ``auto``, failing to get it is a note."""
    if facts.programs.get("uv") or settings.venv.installer == "pip":
        return None
    tools = layout.tools
    attempt = [
        sh(facts.python.get("path", settings.python), "-m", "venv", "--clear", tools),
        timed(
            settings,
            sh(
                tools / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-input",
                "uv",
            ),
        ),
    ]
    install = raw(" && ".join(attempt))
    if settings.venv.installer == "auto":
        failed = block(sh("rm", "-rf", "--", tools), raw("note 'uv cannot be had here, so pip installs'"))
        install = otherwise(install, raw(":"), failed)
    return Step(
        "uv",
        "install uv beside the site",
        block(
            when(raw(f"[ -x {quote_path(tools / 'bin' / 'uv')} ]"), raw("unchanged 'is there'")),
            index_environment(settings, facts),
            install,
        ),
        cure="set fabdjango.venv.installer to pip, or install uv on the host",
    )


def create_venv(settings: Settings, facts: Facts, layout: Layout, key: str) -> Step:
    """An empty virtualenv in its final place; one that was never completed is made anew."""
    target = layout.venv(key)
    python = facts.python.get("path", settings.python)
    with_uv = sh(uv_of(facts, layout), "venv", "--quiet", "--no-project", "--python", python, "--", target)
    with_pip = sh(python, "-m", "venv", "--", target)
    return Step(
        "venv",
        f"virtualenv {key}",
        block(
            when(raw(f"[ -e {quote_path(target / '.complete')} ]"), raw("unchanged 'same requirements'")),
            # Never repaired in place: what a killed installer leaves can be imported and wrong.
            sh("rm", "-rf", "--", target),
            raw("UV_PYTHON_DOWNLOADS=never; export UV_PYTHON_DOWNLOADS"),
            either(settings, facts, layout, with_uv, with_pip),
        ),
        cure="on the host, as root: apt-get install python3-venv",
    )


def either(settings: Settings, facts: Facts, layout: Layout, with_uv: Shell, with_pip: Shell) -> Shell:
    """Uv's way or pip's: known now, or decided on the host where uv had to be fetched first."""
    if settings.venv.installer == "pip":
        return with_pip
    if settings.venv.installer == "uv" or facts.programs.get("uv"):
        return with_uv
    return otherwise(raw(f"[ -x {quote_path(uv_of(facts, layout))} ]"), with_uv, with_pip)


def install_requirements(
    settings: Settings, facts: Facts, layout: Layout, key: str, release_path: PurePosixPath
) -> Step:
    """Everything that the project lists, then what it does not list."""
    target = layout.venv(key)
    sources = list(facts.requirements.get("sources", []))
    with_uv = block(*_uv_installs(settings, facts, layout, target, sources))
    with_pip = block(*_pip_installs(settings, facts, target, sources))
    return Step(
        "install",
        f"install {', '.join(sources) or 'packages'}",
        block(
            when(raw(f"[ -e {quote_path(target / '.complete')} ]"), raw("unchanged 'same requirements'")),
            raw(f"cd -- {quote_path(release_path)}"),
            index_environment(settings, facts),
            either(settings, facts, layout, with_uv, with_pip),
        ),
        cure="",
    )


def timed(settings: Settings, command: Shell) -> Shell:
    """A command that is ended when an install may take no longer."""
    return raw(f"timeout -k 10 {settings.venv.timeout} {command}")


def _uv_installs(
    settings: Settings, facts: Facts, layout: Layout, target: PurePosixPath, sources: list[str]
) -> list[Shell]:
    venv = settings.venv
    uv = uv_of(facts, layout)
    no_index = ["--no-index"] if venv.no_index else []
    isolation = ["--no-build-isolation"] if venv.bootstrap else []
    install: list[Word] = [uv, "pip", "install", "--quiet", "--python", target / "bin" / "python", *no_index]

    def run(*words: Word) -> Shell:
        return timed(settings, sh(*words))

    commands = []
    if venv.bootstrap:
        commands.append(run(*install, "--", *venv.bootstrap))
    if "uv.lock" in sources:
        own = [] if settings.venv.install_project else ["--no-install-project"]
        choices = [word for extra in venv.extras for word in ("--extra", extra)] + [
            word for group in venv.groups for word in ("--group", group)
        ]
        sync = run(
            uv,
            "sync",
            "--quiet",
            "--locked",
            "--no-dev",
            "--no-editable",
            *own,
            *choices,
            *no_index,
            *isolation,
            *venv.options,
        )
        commands.append(raw(f"UV_PROJECT_ENVIRONMENT={quote_path(target)} {sync}"))
    files = [source for source in sources if source not in ("uv.lock", "setup.py", "setup.cfg")]
    if files:
        hashes = ["--require-hashes"] if facts.requirements.get("hashed") else []
        # One resolution over all files, as pip would do it.
        extras = [word for extra in venv.extras for word in ("--extra", extra)] if "pyproject.toml" in files else []
        commands.append(
            run(
                *install,
                *hashes,
                *isolation,
                *extras,
                *venv.options,
                *[word for file in files for word in ("-r", _file(file))],
            )
        )
    if venv.install_project or {"setup.py", "setup.cfg"} & set(sources):
        commands.append(
            run(*install, *isolation, *venv.options, "--", _project(venv.extras))
            if "uv.lock" not in sources
            else raw(":")
        )
    return [*commands, *_unlisted(settings, lambda *names: run(*install, *isolation, *venv.options, "--", *names))]


def _pip_installs(settings: Settings, facts: Facts, target: PurePosixPath, sources: list[str]) -> list[Shell]:
    venv = settings.venv
    locks = [source for source in sources if source in _LOCKS]
    if locks:
        return [
            raw(
                f"refuse {quote(f'{locks[0]} can only be installed by uv, which is not on the host and cannot be had there')}"
            )
        ]
    isolation = ["--no-build-isolation"] if venv.bootstrap else []
    no_index = ["--no-index"] if venv.no_index else []
    install: list[Word] = [
        target / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        *no_index,
    ]

    def run(*words: Word) -> Shell:
        return timed(settings, sh(*words))

    commands = []
    if venv.bootstrap:
        commands.append(run(*install, "--", *venv.bootstrap))
    files = [source for source in sources if source not in _PROJECTS]
    if files:
        hashes = ["--require-hashes"] if facts.requirements.get("hashed") else []
        commands.append(
            run(*install, *hashes, *isolation, *venv.options, *[word for file in files for word in ("-r", _file(file))])
        )
    if venv.install_project or set(_PROJECTS) & set(sources):
        commands.append(run(*install, *isolation, *venv.options, "--", _project(venv.extras)))
    return [*commands, *_unlisted(settings, lambda *names: run(*install, *isolation, *venv.options, "--", *names))]


def _unlisted(settings: Settings, install: Callable[..., Shell]) -> list[Shell]:
    # A file with hashes admits nothing without one, so these are a command of their own.
    names = (*settings.venv.packages, *_worker_packages(settings))
    return [install(*names)] if names else []


def _file(name: str) -> str:
    return f"./{name}"


def _project(extras: tuple[str, ...]) -> str:
    return f".[{','.join(extras)}]" if extras else "."


def index_environment(settings: Settings, facts: Facts) -> Shell:
    """
    Where packages come from, as variables: an index's address may hold a password, and a command line is public.

    uv does not read pip's configuration, so the host's is handed on to it.
    """
    venv, host = settings.venv, facts.pip_config
    values: dict[str, str] = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "PIP_NO_INPUT": "1"}
    index = venv.index_url or host.get("index-url", "")
    extra = " ".join(venv.extra_index_urls) or " ".join(host.get("extra-index-url", "").split())
    links = list(venv.find_links) or host.get("find-links", "").split()
    if index:
        values["UV_DEFAULT_INDEX"] = index
    if extra:
        values["UV_INDEX"] = extra
    if links:
        values["UV_FIND_LINKS"] = ",".join(links)
    if host.get("cert"):
        values["SSL_CERT_FILE"] = host["cert"]
    if venv.index_url:
        values["PIP_INDEX_URL"] = venv.index_url
    if venv.extra_index_urls:
        values["PIP_EXTRA_INDEX_URL"] = " ".join(venv.extra_index_urls)
    if venv.find_links:
        values["PIP_FIND_LINKS"] = " ".join(venv.find_links)
    return _exports(values)


def _exports(values: Mapping[str, str]) -> Shell:
    return block(*(raw(f"export {env_name(name)}={quote(value)}") for name, value in sorted(values.items())))


def mark_complete(layout: Layout, key: str) -> Shell:
    """Say that the virtualenv is whole; nothing writes into it afterwards."""
    target = layout.venv(key)
    return when(
        raw(f"! [ -e {quote_path(target / '.complete')} ]"),
        # uv leaves a lock that every account may write. chmod -R would touch each of some thousand files.
        raw(f"find {quote_path(target)} -perm /022 ! -type l -exec chmod go-w -- '{{}}' '+'"),
        sh("sync", "-f", "--", target),
        sh("touch", "--", target / ".complete"),
    )


def read_names(text: str) -> tuple[str, ...]:
    """Requirements in one string, split as a shell would; a ConfigError for quotes that do not close."""
    return tuple(split_words(text, "fab … venv.package 'ipython httpx<1'"))


def install_package(settings: Settings, facts: Facts, layout: Layout, names: tuple[str, ...]) -> Step:
    """Packages by hand into the virtualenv of the release that serves; for trying, not for keeping."""
    python = raw('"$venv"/bin/python')
    with_uv = timed(settings, sh(uv_of(facts, layout), "pip", "install", "--python", python, "--", *names))
    with_pip = timed(
        settings, sh(python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--", *names)
    )
    return Step(
        "package",
        f"install {' '.join(names)} into the virtualenv that serves",
        block(
            find_venv(layout), index_environment(settings, facts), either(settings, facts, layout, with_uv, with_pip)
        ),
    )


def find_venv(layout: Layout, release: str = "current") -> Shell:
    """Set ``venv`` to the virtualenv of a release."""
    marker = (layout.current if release == "current" else layout.release(release)) / ".fabdjango" / "venv"
    return block(
        raw(f"[ -e {quote_path(marker)} ] || refuse {quote(f'{release}: no release with a virtualenv')}"),
        raw(f"venv=$(cat -- {quote_path(marker)})"),
    )


_LIST = "import importlib.metadata as m; print('\\n'.join(sorted({d.metadata['Name'] + '==' + d.version for d in m.distributions()}, key=str.lower)))"


def freeze(layout: Layout, release: str = "current") -> Step:
    """Name and version of every package, one a line; works in virtualenvs without pip."""
    return Step(
        "freeze",
        f"packages of {release}",
        block(find_venv(layout, release), raw(f'"$venv"/bin/python -c {quote(_LIST)}')),
        capture=True,
    )


def diff(layout: Layout, old: str, new: str) -> tuple[Step, Step]:
    """The packages of two releases."""
    return freeze(layout, old), freeze(layout, new)
