"""
The operator's own clone: which commit is meant, what is not committed, and what a host lacks.

Runs the operator's git. It asks nobody anything, and what comes from a command
line or from a host never stands where git would take it for an option.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fabdjango.commands.git import read_ref
from fabdjango.exceptions import ConfigError, FabdjangoError

__all__ = ["Clone", "Commit", "open_clone"]

_SHA = r"[0-9a-f]{40}"
_PROMISED = r"^(extensions\.partialclone|remote\..*\.promisor)$"
_ELSEWHERE = "or let the host fetch by itself: git: {transfer: pull}"


@dataclass(frozen=True)
class Commit:
    """A commit of the clone: its full id, and the branch that it is the newest of, or an empty string."""

    sha: str
    branch: str = ""


def open_clone(folder: Path, environ: Mapping[str, str] | None = None) -> Clone:
    """
    The clone that ``folder`` is in.

    Raises ConfigError if there is none, if it has no commit yet, or if its
    commits have ids that a host's mirror cannot take.
    """
    given = os.environ if environ is None else environ
    clone = Clone(folder, {**{name: text for name, text in given.items() if name not in _OF_A_HOOK}, **_UNATTENDED})
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", cure=f"change fabdjango.git.clone\n{_ELSEWHERE}")
    found = clone.ask("rev-parse", "--is-inside-work-tree", "--show-object-format")
    if found.returncode != 0 or not found.stdout.startswith(b"true"):
        raise ConfigError(
            f"{folder} is not in a work tree of git",
            output=found.stderr.decode("utf-8", "replace").strip(),
            cure=f"set fabdjango.git.clone to the folder of your clone, as seen from the fabfile\n{_ELSEWHERE}",
        )
    if found.stdout.split()[1:] != [b"sha1"]:
        msg = f"the clone {folder} has ids of another kind than SHA-1"
        raise ConfigError(msg, cure=f"git init --object-format=sha1 makes one that can be sent\n{_ELSEWHERE}")
    return clone


# Where git's hooks find the repository that they run for, which need not be the one that is deployed.
_OF_A_HOOK = {
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
}
_UNATTENDED = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    # What a host gets must be what the ids say.
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}


@dataclass(frozen=True)
class Clone:
    """A clone with a work tree, by any folder in it."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ask(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run git, whatever it says."""
        try:
            return subprocess.run(
                ["git", "-C", str(self.folder), *words],
                input=stdin,
                capture_output=True,
                env=dict(self.environ),
                check=False,
            )
        except FileNotFoundError:
            msg = "git is not installed here, and git.transfer is push"
            raise ConfigError(msg, cure=f"install git on this machine\n{_ELSEWHERE}") from None

    def read(self, *words: str, stdin: bytes = b"") -> bytes:
        """What git prints; raises FabdjangoError if it fails."""
        done = self.ask(*words, stdin=stdin)
        if done.returncode != 0:
            msg = f"git {words[0]} failed in the clone {self.folder}"
            said = done.stderr.decode("utf-8", "replace").strip()
            raise FabdjangoError(msg, output=said, cure="see whether the clone is whole: git fsck")
        return done.stdout

    def _commit(self, name: str) -> str:
        done = self.ask("rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}")
        return done.stdout.decode("ascii").strip() if done.returncode == 0 else ""

    def resolve(self, ref: str, usual: str = "") -> Commit:
        """
        The commit that ``ref`` is here: a branch, else a tag, else HEAD or the beginning of an id.

        ``usual`` is a branch that is named too if it is at that commit. Raises
        ConfigError for what is no name, and FabdjangoError for what is not there.
        """
        name = read_ref(ref)
        branch = self._commit("refs/heads/" + name)
        sha = branch or self._commit("refs/tags/" + name)
        if not sha and (name == "HEAD" or re.fullmatch(r"[0-9a-fA-F]{4,40}", name)):
            sha = self._commit(name)
        if not sha:
            raise self._unknown(name)
        if branch:
            return Commit(sha, name)
        return Commit(sha, usual if usual and self._commit("refs/heads/" + read_ref(usual)) == sha else "")

    def _unknown(self, name: str) -> FabdjangoError:
        refs = self.read("for-each-ref", "--format=%(refname)").decode("utf-8", "replace").split()
        if not refs and not self._commit("HEAD"):
            return FabdjangoError(f"the clone {self.folder} has no commit yet", cure="commit, then deploy")
        if re.fullmatch(r"[0-9a-fA-F]{4,40}", name):
            found = self.ask("rev-parse", f"--disambiguate={name}").stdout.split()
            if len(found) > 1:
                msg = f"{name} is the beginning of several objects of your clone"
                return FabdjangoError(msg, cure="give more of the commit's id")
        remote = next((ref for ref in refs if re.fullmatch(rf"refs/remotes/[^/]+/{re.escape(name)}", ref)), "")
        if remote:
            short = remote.removeprefix("refs/remotes/")
            msg = f"your clone has {short}, but no branch {name} of its own"
            return FabdjangoError(msg, cure=f"make it: git branch {name} {short}\nor name the commit")
        known = [ref.split("/", 2)[2] for ref in refs if ref.startswith(("refs/heads/", "refs/tags/"))]
        near = difflib.get_close_matches(name, known, n=3)
        guess = f"did you mean {' or '.join(near)}?\n" if near else ""
        msg = f"your clone has no branch, tag or commit {name}"
        return FabdjangoError(msg, cure=f"{guess}git fetch gets what others have pushed, or check the spelling")

    def subject(self, sha: str) -> str:
        """The commit in a line: a short id and its subject."""
        return self.read("log", "-1", "--format=%h %s", sha).decode("utf-8", "replace").strip()

    # --- what is not committed -------------------------------------------------

    def uncommitted(self) -> list[str]:
        """Paths with changes that are in no commit, and paths that git neither tracks nor ignores."""
        fields = self.read("status", "--porcelain=v1", "-z", "--untracked-files=normal").split(b"\0")
        found = []
        while fields:
            entry = fields.pop(0)
            if entry[:1] in (b"R", b"C"):
                # The old name follows.
                fields.pop(0)
            if entry:
                found.append(entry[3:].decode("utf-8", "replace"))
        return found

    def refuse_uncommitted(self) -> None:
        """Raise FabdjangoError if anything is not committed: it would not be deployed."""
        paths = self.uncommitted()
        if not paths:
            return
        more = [f"and {len(paths) - 5} more"] if len(paths) > 5 else []
        shown = [path if path.isprintable() else repr(path) for path in paths[:5]]
        raise FabdjangoError(
            f"your clone has work that is not committed, and would not be deployed: {len(paths)} path"
            + ("s" if len(paths) > 1 else ""),
            output="\n".join([*shown, *more]),
            cure="commit it, or list it in .gitignore\nor take the commit without it: fab … deploy --allow-dirty",
        )

    # --- what a host lacks -----------------------------------------------------

    def pack(self, sha: str, have: Iterable[str] = ()) -> bytes:
        """
        What a repository that has the commits ``have`` (with all that they stand on) lacks of ``sha``, as a thin pack.

        Raises FabdjangoError if this clone does not have all of it: it is shallow, or partial.
        """
        # A host is not trusted to send nothing but ids.
        theirs = [each for each in dict.fromkeys(have) if re.fullmatch(_SHA, each)]
        revisions = "".join(f"{line}\n" for line in [sha, *(f"^{each}" for each in self._known(theirs))]).encode()
        self._refuse_shallow(revisions, set(theirs))
        partial = self.ask("config", "--get-regexp", _PROMISED).returncode == 0
        if partial:
            self._refuse_partial(revisions)
        # Of what the host has, a partial clone may have nothing that a change could be told by.
        thin = () if partial else ("--thin",)
        return self.read("pack-objects", "--revs", *thin, "--stdout", "--delta-base-offset", "-q", stdin=revisions)

    def _known(self, have: list[str]) -> list[str]:
        if not have:
            return []
        said = self.read("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="\n".join(have).encode())
        return [line.split()[0] for line in said.decode("ascii").splitlines() if line.endswith(" commit")]

    def _refuse_shallow(self, revisions: bytes, have: set[str]) -> None:
        if self.read("rev-parse", "--is-shallow-repository").strip() != b"true":
            return
        place = self.folder / os.fsdecode(self.read("rev-parse", "--git-path", "shallow").rstrip(b"\n"))
        cut = set(place.read_text(encoding="ascii").split())
        sent = self.read("rev-list", "--stdin", stdin=revisions).decode("ascii").split()
        for sha in cut.intersection(sent):
            header = self.read("cat-file", "commit", sha).partition(b"\n\n")[0].decode("utf-8", "replace")
            # As git log would have it, the commit where the clone was cut has no parents.
            if not set(re.findall(rf"^parent ({_SHA})$", header, re.MULTILINE)) <= have:
                msg = "your clone is shallow, and the host lacks commits that are not in it"
                raise FabdjangoError(msg, cure=f"get them: git fetch --unshallow\n{_ELSEWHERE}")

    def _refuse_partial(self, revisions: bytes) -> None:
        listed = self.read("rev-list", "--objects", "--missing=print", "--stdin", stdin=revisions)
        missing = sum(line.startswith(b"?") for line in listed.splitlines())
        if missing:
            msg = f"your clone is partial: {missing} objects that the host lacks are not in it"
            raise FabdjangoError(
                msg,
                cure=f"get them: git fetch --refetch --no-filter\n(git fetch --unshallow, if it is shallow too)\n{_ELSEWHERE}",
            )
