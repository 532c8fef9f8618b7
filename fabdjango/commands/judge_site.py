"""What the answers of a check mean for what a site has on a host: facts to findings, each with its cure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from fabdjango.commands.check import ERROR, NOTE, OK, WARNING, Case, Finding, Severity, Started, as_root, difference
from fabdjango.escape import raw, sh
from fabdjango.plan import Put

__all__ = ["django", "django_failed", "edited", "programs", "site"]


# --- the site's folder -------------------------------------------------------


def site(case: Case) -> Iterator[Finding]:
    """What the site has on the host: folders, secrets, the release that serves, the lock, and what was left."""
    yield from _folders(case)
    yield from _secrets(case)
    yield from _database_before(case)
    yield from _tree(case)
    yield from _lock(case)
    yield from history(case)


def _folders(case: Case) -> Iterator[Finding]:
    layout = case.layout
    media = layout.shared / case.settings.nginx.media
    paths = (layout.root, layout.releases, layout.venvs, layout.shared, layout.run, media)
    bad = [found for path in paths if (found := _folder(case, path, WARNING if path == media else ERROR))]
    yield from bad
    if not bad:
        owner, is_there = case.owner or case.facts.user, case.facts.root_exists
        text = f"{owner} may write {layout.root}" if is_there else f"{layout.root} is made by the first deploy"
        yield Finding("shared", OK, text)


def _folder(case: Case, path: PurePosixPath, severity: Severity) -> Finding | None:
    found, owner = case.look.places.get(str(path), {}), case.owner or case.facts.user
    if found.get("writes", True):
        return None
    if found["is"] != "missing":
        text = f"{owner} may not write {path}, which belongs to {found['owner']}"
        return Finding("shared", severity, text, as_root("chown", "-R", f"{owner}:", path))
    if path == case.layout.root and not case.look.may_be_root:
        text = f"{path} is not there, and {owner} may not make it"
        return Finding("shared", severity, text, as_root("install", "-d", "-o", owner, path))
    # Whoever may be root makes it; what is below belongs to it.
    return None


def _secrets(case: Case) -> Iterator[Finding]:
    for path in (case.layout.env_file, case.layout.generated_env, case.layout.local_settings):
        found = case.look.places.get(str(path), {})
        if found.get("is") == "file" and found["mode"] & 0o007:
            type_it = case.as_owner if found["owner"] == case.facts.user else as_root
            text = f"every account of the host may read {path}"
            yield Finding("secrets", WARNING, text, type_it("chmod", "o=", path))


def _database_before(case: Case) -> Iterator[Finding]:
    if case.look.database is None:
        return
    place, why = case.look.database
    if why:
        cure = "does the server run, and does it listen there? see DATABASE_URL in the site's environment"
        yield Finding("database", ERROR, f"nothing takes connections at {place}: {why}", cure)
    else:
        yield Finding("database", OK, f"something takes connections at {place}")


def _tree(case: Case) -> Iterator[Finding]:
    facts, changed = case.facts, case.look.changed
    if not facts.current:
        return
    if changed is None:
        yield Finding("release", NOTE, f"{facts.current} could not be compared with its commit")
        return
    if not changed:
        yield Finding("release", OK, f"the files of {facts.current} are those of its commit")
        return
    more = [f"… and {len(changed) - 10} more"] if len(changed) > 10 else []
    path, sha = case.layout.release(facts.current), str(facts.current_marker["commit"])
    words = sh("git", f"--git-dir={case.layout.mirror}", "archive", sha, "--", *changed[:10])
    cure = case.as_owner(raw(f"{words} | {sh('tar', '-x', '-C', path)}")) + f"\nthen: {case.fab('restart')}"
    text = "\n".join([f"files of {facts.current} were changed by hand:", *changed[:10], *more])
    yield Finding("release", WARNING, text, cure)


def _lock(case: Case) -> Iterator[Finding]:
    if case.look.lock:
        text = f"another deployment is running: {case.look.lock}"
        waits = case.settings.lock_wait > 0
        cure = f"wait for it: {case.fab('deploy --wait=600')}\nor see: {case.fab('unlock')}"
        yield Finding("lock", NOTE if waits else ERROR, text, cure)
    else:
        yield Finding("lock", OK, "nobody deploys")
    if case.facts.left_behind:
        release = case.facts.activation.get("release") or next(iter(case.facts.slots.values()), "a release")
        state = f" ({case.facts.activation['state']})" if case.facts.activation.get("state") else ""
        text = f"an activation of {release} is under way or was left behind{state}"
        yield Finding("activation", WARNING, text, case.fab("deploy --resume"))


def history(case: Case) -> Iterator[Finding]:
    """Releases, and the last thing that the journal says."""
    facts, keep = case.facts, case.settings.keep_releases
    whole = [name for name, marker in facts.releases.items() if marker]
    text = f"{facts.current or 'none'} serves, {len(whole)} are complete"
    if len([name for name in whole if name not in facts.pins]) > keep:
        yield Finding("releases", NOTE, f"{text}; keep_releases is {keep}", case.fab("prune"))
    else:
        yield Finding("releases", OK, text)
    if facts.journal:
        last = facts.journal[-1]
        told = f"{last.get('time')}: {last.get('event')} of {last.get('release')} by {last.get('by')}: {last.get('result')}"
        yield Finding("journal", NOTE if last.get("result") in ("failed", "reverted", "unknown") else OK, told)


# --- what was changed by hand --------------------------------------------------


def programs(case: Case, wanted: Iterable[tuple[Put, str]]) -> Iterator[Finding]:
    """Files outside of releases, beside what a deploy would write; each with the task that writes it."""
    good = True
    for put, task in wanted:
        found = (case.facts.managed.get(str(put.path)) or {}).get("text")
        if found == put.content:
            continue
        good = False
        if found is None:
            text = f"{put.path} is not there: what it starts does not start again"
        else:
            change = difference(found, put.content)
            text = f"{put.path} is not what fabric.yaml says: changed by hand, or the settings have\n{change}"
        yield Finding("programs", WARNING, text, case.fab(task))
    if good:
        yield Finding("programs", OK, f"the files of {case.settings.manager} are what fabric.yaml says")


def edited(case: Case, puts: Iterable[Put], *, by_hand: bool) -> Iterator[Finding]:
    """
    Files of the release that serves that are not what a release made now would have.

    ``by_hand`` is whether the settings are still those that it was made with.
    """
    current, deploy = case.facts.current, case.fab("deploy")
    changes = []
    for put in puts:
        found = case.facts.managed[str(case.layout.current / ".fabdjango" / put.path.name)]
        shown = "(secret, not shown)" if put.secret else difference(found.get("text") or "", put.content)
        changes.append((put.path, shown))
    if by_hand:
        for path, shown in changes:
            yield Finding("config", WARNING, f"{path} was changed by hand\n{shown}", deploy)
        if not changes:
            yield Finding("config", OK, f"{current} runs with what fabric.yaml says")
        return
    text = f"settings, or the host's Python, have changed since {current} was made"
    told = [line for path, shown in changes for line in (f"{path.name}:", shown)]
    yield Finding("config", NOTE, "\n".join([text, *told]), deploy)


# --- Django ------------------------------------------------------------------


def django(case: Case, started: Started) -> Iterator[Finding]:
    """What Django's own checks say, and whether its databases can be written."""
    for each in started.databases:
        yield _database(case, each)
    for message in started.messages:
        yield _message(case, message)
    if not started.messages:
        yield Finding("django", OK, "manage.py check --deploy has nothing to say")


_LEVELS = {"never": 1000, "CRITICAL": 50, "ERROR": 40, "WARNING": 30}
_LINES = {
    "W002": 'MIDDLEWARE: "django.middleware.clickjacking.XFrameOptionsMiddleware"',
    "W003": 'MIDDLEWARE: "django.middleware.csrf.CsrfViewMiddleware"',
    "W004": "SECURE_HSTS_SECONDS = 3600",
    "W005": "SECURE_HSTS_INCLUDE_SUBDOMAINS = True",
    "W006": "SECURE_CONTENT_TYPE_NOSNIFF = True",
    "W008": "SECURE_SSL_REDIRECT = True",
    "W010": "SESSION_COOKIE_SECURE = True",
    "W012": "SESSION_COOKIE_SECURE = True",
    "W016": "CSRF_COOKIE_SECURE = True",
    "W018": "DEBUG = False",
    "W020": 'ALLOWED_HOSTS = ["the names of the site"]',
    "W021": "SECURE_HSTS_PRELOAD = True",
}
"""What mends the findings of django.core.checks.security."""
_OVER_TLS = ("W004", "W005", "W008", "W010", "W012", "W016", "W021")
"""What would shut visitors out of a site that is served over http."""


def _message(case: Case, message: Mapping[str, Any]) -> Finding:
    nginx, word = case.settings.nginx, str(message["id"])
    text = f"{message['about']}: {message['text']}" if message["about"] else str(message["text"])
    level = int(message["level"])
    # nginx does it.
    done = {"security.W008": nginx.tls != "none", "security.W004": bool(nginx.hsts)}.get(word, False)
    fatal = level >= max(40, _LEVELS[case.settings.django.check])
    severity = ERROR if fatal else NOTE if level < 30 or done else WARNING
    subject = f"django-{word}" if word else "django"
    return Finding(subject, severity, " ".join(text.split()), _mended(word, str(message["hint"])))


def _mended(word: str, hint: str) -> str:
    name = word.removeprefix("security.")
    first = "once the site is served over https, " if name in _OVER_TLS else ""
    if word.startswith("security.") and name in _LINES:
        hint = f"{first}in the project's settings: {_LINES[name]}"
    silence = f'\nor, if it is meant: SILENCED_SYSTEM_CHECKS = ["{word}"]' if word else ""
    return (hint or "mend it in the project") + silence


def _database(case: Case, found: Mapping[str, Any]) -> Finding:
    place = " ".join(filter(None, [found["vendor"], found["name"], found["place"]]))
    name = f"the database {found['alias']} ({place})"
    if found.get("error"):
        return Finding("database", ERROR, f"{name}: {found['error']}", _database_cure(case, found))
    if found.get("schema"):
        text = f"{name}: {found['user']} may not make tables in the schema {found['schema']}, as migrations do"
        grant = f'GRANT CREATE ON SCHEMA "{found["schema"]}" TO "{found["user"]}"'
        psql = as_root("runuser", "-u", "postgres", "--", "psql", "-d", str(found["name"]), "-c", grant)
        return Finding("database", WARNING, text, psql)
    return Finding("database", OK, f"{name} can be written" + (f": {found['note']}" if found.get("note") else ""))


def _database_cure(case: Case, found: Mapping[str, Any]) -> str:
    if found.get("missing"):
        return case.fab("django.migrate")
    if found.get("path"):
        return as_root("chown", f"{case.facts.user}:", found["path"])
    return (
        "does the server run, and are its name, account and password in the site's environment right?\n"
        f"try: {case.fab('django.dbshell')}"
    )


def django_failed(case: Case, output: str, cure: str) -> Finding:
    """A start of Django that ended with an error; a variable that the settings miss is named."""
    lines = [line for line in output.strip().splitlines() if not line.startswith("cure: ")]
    missing = re.search(r"\bKeyError: '(\w+)'$|\bSet the (\w+) environment variable", output, re.MULTILINE)
    if missing and "settings module" in output:
        name = missing[1] or missing[2]
        text = f"the settings read {name} from the environment, where it is not set"
        plain = f"in fabric.yaml, if it is no secret: environment: {{{name}: …}}"
        told = "\n".join([text, *lines])
        return Finding(
            "settings", ERROR, told, f"{case.fab(f'env.set {name}')}\nor {plain}\nthen: {case.fab('deploy')}"
        )
    told = "\n".join(["Django does not start in the release that serves", *lines[-12:]])
    return Finding("django", ERROR, told, cure or f"see: {case.fab('django.check')}")
