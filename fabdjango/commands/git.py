"""The mirror, and what is read or taken from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from fabdjango.escape import Shell, block, quote, quote_path, raw, sh, when, with_env
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from fabdjango.plan import Step
from fabdjango.settings import Settings

__all__ = [
    "check_repository",
    "clone_mirror",
    "diff",
    "export_release",
    "fetch_mirror",
    "head",
    "list_remote",
    "log",
    "read_listing",
    "read_ref",
    "receive",
    "show",
    "status",
    "worktree_changes",
]

# git must fail rather than wait for a person, and must not be steered by the account's own hooks and templates.
_UNATTENDED = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=20",
}
_BRANCHES_AND_TAGS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")


def read_ref(text: str) -> str:
    """
    ``text`` as the name of a branch, a tag or a commit, by git's own rules for names.

    Raises ConfigError for what git would not take as a name, and for a leading
    dash, which it would take as an option.
    """
    bad = (
        not text
        or text.startswith(("-", "/", "."))
        or text.endswith(("/", ".", ".lock"))
        or any(part.startswith(".") or part.endswith(".lock") for part in text.split("/"))
        or re.search(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//", text)
        or text == "@"
    )
    if bad:
        msg = f"{text!r} is not a branch, a tag or a commit"
        raise ConfigError(msg, cure="give a name as git branch, git tag or git log show it")
    return text


def check_repository(settings: Settings) -> None:
    """Raise ConfigError for an address that holds a password: git shows it to every account in its helpers' arguments."""
    if re.match(r"https?://[^/]*@|\w+://[^/]*:[^/]*@", settings.repository):
        msg = (
            "fabdjango.repository holds a password or a token, which every account on the host could see while git runs"
        )
        raise ConfigError(
            msg,
            cure="use an ssh address with a deploy key,\n"
            "or keep the token in the host's git credentials: git config --global credential.helper store",
        )


def _network(settings: Settings, *words: str | PurePosixPath | Shell) -> Shell:
    return with_env(_UNATTENDED, sh("timeout", "-k", "10", settings.git.timeout, "git", *words))


def _on_mirror(layout: Layout) -> Shell:
    return raw(f"git --git-dir={quote_path(layout.mirror)}")


def _url(settings: Settings) -> Shell:
    return quote_path(settings.repository) if settings.repository.startswith("~") else Shell(quote(settings.repository))


def clone_mirror(settings: Settings, layout: Layout) -> Step:
    """Make the bare mirror, or say that it is there, and fetch into it."""
    return Step("clone", f"clone {settings.repository} as a bare mirror", _fetch(settings, layout))


def fetch_mirror(settings: Settings, layout: Layout) -> Step:
    """Bring the mirror up to date: all branches and tags, those deleted there deleted here."""
    return Step("fetch", f"fetch from {settings.repository}", _fetch(settings, layout))


def _fetch(settings: Settings, layout: Layout) -> Shell:
    git = _on_mirror(layout)
    return block(
        _make_mirror(layout),
        raw(f"before=$({git} for-each-ref)"),
        _network(
            settings,
            raw(f"--git-dir={quote_path(layout.mirror)}"),
            # In the background it would go on after our lock is gone.
            "-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false",
            # By default git syncs neither loose objects nor refs: after a power cut they are there and empty.
            "-c", "core.fsync=all",
            "fetch", "--quiet", "--force", "--prune", "--no-recurse-submodules", "--", _url(settings), *_BRANCHES_AND_TAGS,
        ),
        raw(f'[ "$before" != "$({git} for-each-ref)" ] || unchanged "nothing new"'),
    )  # fmt: skip


def _make_mirror(layout: Layout) -> Shell:
    return block(
        sh("mkdir", "-p", "--", layout.root, layout.releases, layout.venvs, layout.shared, layout.run),
        when(raw(f"! [ -e {quote_path(layout.mirror / 'HEAD')} ]"), sh("git", "init", "--quiet", "--bare", "--", layout.mirror)),
        # What a killed git left; nobody else writes here while we hold the lock.
        raw(f"find {quote_path(layout.mirror)} -name '*.lock' -type f -delete"),
    )  # fmt: skip


def receive(layout: Layout, pack: bytes, sha: str, branch: str = "", keep: Iterable[str] = ()) -> Step:
    """
    Take ``pack``, which has what the mirror lacks of the commit ``sha``, and note that the commit is whole.

    ``branch`` is set to it, if one is named. Of the commits that came this way
    the newest stay, and those of ``keep``, full ids of what releases are made of.
    """
    git = _on_mirror(layout)
    # In the background it would go on after our lock is gone; by default git syncs neither loose objects nor refs.
    careful = raw(f"{git} -c gc.autoDetach=false -c maintenance.autoDetach=false -c core.fsync=all")
    note = quote(f"the mirror has another branch in the way of {branch}, which stays as it is")
    kept = quote(" " + " ".join(dict.fromkeys([sha, *keep])) + " ")
    return Step(
        "receive",
        f"receive {sha[:12]} from the operator's clone ({_size(len(pack))})",
        block(
            _make_mirror(layout),
            raw(f"find {quote_path(layout.mirror / 'objects')} -name 'tmp_*' -type f -delete"),
            raw(f"{careful} {sh('index-pack', '--stdin', '--fix-thin', f'--strict={_OLD_FLAWS}')} >/dev/null"),
            # A pack may be sound in itself and still not be all.
            raw(f"{git} rev-list --objects --quiet {quote(sha)} --not --all || refuse 'objects of the commit are missing'"),
            raw(f"{careful} {sh('update-ref', f'refs/fabdjango/pushed/{sha}', sha)}"),
            raw(f"{careful} {sh('update-ref', f'refs/heads/{branch}', sha)} || note {note}") if branch else raw(""),
            raw("n=0"),
            raw(f"for ref in $({git} for-each-ref --sort=-committerdate --format='%(refname)' refs/fabdjango/pushed); do"),
            raw(f"  n=$((n + 1)); [ $n -gt {_PUSHED} ] || continue"),
            raw(f'  case {kept} in *" ${{ref##*/}} "*) ;; *) {git} update-ref -d "$ref";; esac'),
            raw("done"),
            raw(f"{careful} gc --auto --quiet"),
        ),
        feed=pack,
        cure="see whether the disk is full: df -h\nand whether the clone is whole: git fsck\nthen deploy again",
    )  # fmt: skip


_PUSHED = 50
"""Commits that came without a branch to stay on would else be there for ever."""
# What old versions of git wrote, and every host of repositories takes.
_OLD_FLAWS = ",".join(
    f"{flaw}=ignore"
    for flaw in (
        "badDate", "badEmail", "badName", "badTimezone", "missingEmail", "missingNameBeforeEmail",
        "missingSpaceBeforeDate", "missingSpaceBeforeEmail", "multipleAuthors", "zeroPaddedDate", "zeroPaddedFilemode",
    )
)  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def list_remote(settings: Settings) -> Step:
    """Ask the repository for its branches and tags without writing anything."""
    return Step(
        "fetch",
        f"look at {settings.repository}",
        _network(settings, "ls-remote", "--heads", "--tags", "--", _url(settings)),
        capture=True,
    )


def read_listing(listing: str, ref: str) -> str:
    """The commit that ``ref`` is in an answer to list_remote: a branch, else a tag, else a commit that one of them is at."""
    refs = {name: sha for sha, _, name in (line.partition("\t") for line in listing.splitlines())}
    named = refs.get(f"refs/heads/{ref}") or refs.get(f"refs/tags/{ref}^{{}}") or refs.get(f"refs/tags/{ref}")
    return named or next((sha for sha in refs.values() if len(ref) >= 4 and sha.startswith(ref.lower())), "")


# A second process writes half the files as long as there are many: thousands of new files keep one core busy.
_WORKERS = "-c checkout.workers=2 -c checkout.thresholdForParallelism=1000"


def export_release(layout: Layout, release: str, sha: str) -> Step:
    """Write the commit's files into the release directory and compare them with the tree."""
    target = layout.release(release)
    index = layout.private(release) / "index"
    git = raw(
        f"GIT_INDEX_FILE={quote_path(index)} git --git-dir={quote_path(layout.mirror)} --work-tree={quote_path(target)} -c core.bare=false -c core.fsync=none"
    )
    return Step(
        "export",
        f"export {sha[:12]} into releases/{release}",
        block(
            sh("mkdir", "-p", "--", layout.private(release)),
            # No pipe: a tar cut at a member boundary unpacks with status 0.
            raw(f"{git} read-tree --reset {quote(sha)}"),
            raw(f"{git} {_WORKERS} checkout-index --all --force --quiet --index"),
            raw(f'[ -z "$({git} diff-files --name-only)" ] || refuse "the exported files differ from the commit"'),
            sh("rm", "-f", "--", index),
        ),
        cure="see whether the disk is full: df -h, df -i",
    )


def status(layout: Layout) -> Step:
    """What the mirror and the release that serves are at."""
    git = _on_mirror(layout)
    return Step(
        "status",
        "branches of the mirror, and the release that serves",
        block(
            _need_mirror(layout),
            raw(
                f"{git} for-each-ref --sort=-committerdate --count=15 --format='%(objectname:short=12) %(committerdate:short) %(refname:lstrip=2)' refs/heads"
            ),
            when(
                raw(f"[ -L {quote_path(layout.current)} ]"),
                raw(f'printf \'current: %s\\n\' "$(basename -- "$(readlink {quote_path(layout.current)})")"'),
            ),
        ),
    )


def worktree_changes(layout: Layout) -> Shell:
    """Files of the current release that are not as in its commit, one a line."""
    git = _on_mirror(layout)
    current = quote_path(layout.current)
    return raw(f'{git} --work-tree={current} -c core.bare=false diff --name-only "$sha" -- .')


def log(layout: Layout, ref: str, count: int) -> Step:
    """The newest commits of ``ref``."""
    return _read("log", f"log of {ref}", layout, ref, "log", f"--max-count={count}", "--format=%h %cs %an: %s")


def show(layout: Layout, ref: str) -> Step:
    """One commit with its changes."""
    return _read("show", f"show {ref}", layout, ref, "show", "--stat", "--patch", "--no-color")


def head(layout: Layout, ref: str) -> Step:
    """The full id of the commit that ``ref`` means."""
    return _read("head", f"commit of {ref}", layout, ref, "rev-parse", "--verify")


def diff(layout: Layout, old: str, new: str) -> Step:
    """What changed between two commits."""
    git = _on_mirror(layout)
    body = block(
        _need_mirror(layout),
        _commit(layout, old, "old"),
        _commit(layout, new, "new"),
        raw(f'{git} --no-pager diff --no-color --no-ext-diff "$old" "$new"'),
    )
    return Step("diff", f"changes from {old} to {new}", body)


def _read(name: str, title: str, layout: Layout, ref: str, *words: str) -> Step:
    git = _on_mirror(layout)
    return Step(
        name,
        title,
        block(_need_mirror(layout), _commit(layout, ref, "sha"), raw(f'{git} --no-pager {sh(*words)} "$sha"')),
    )


def _need_mirror(layout: Layout) -> Shell:
    return raw(f"[ -e {quote_path(layout.mirror / 'HEAD')} ] || refuse 'there is no mirror yet: run git.clone first'")


def _commit(layout: Layout, ref: str, variable: str) -> Shell:
    """Resolve ``ref`` into a shell variable; ``current`` is the release that serves."""
    git = _on_mirror(layout)
    if ref == "current":
        current = quote_path(layout.current)
        return block(
            raw(f"[ -L {current} ] || refuse 'no release serves yet'"),
            raw(f'{variable}=$(basename -- "$(readlink {current})")'),
            raw(
                f"{variable}=$({git} rev-parse --verify --quiet \"${{{variable}#*-}}^{{commit}}\") || refuse 'the commit of the current release is not in the mirror'"
            ),
        )
    name = read_ref(ref)
    tries = [quote(f"refs/heads/{name}^{{commit}}"), quote(f"refs/tags/{name}^{{commit}}"), quote(f"{name}^{{commit}}")]
    lookups = " || ".join(f"{git} rev-parse --verify --quiet {each}" for each in tries)
    return raw(
        f"{variable}=$({lookups}) || refuse {quote(f'there is no branch, tag or commit {name} in the mirror: run git.fetch, or check the spelling')}"
    )
