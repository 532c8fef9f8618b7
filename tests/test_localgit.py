"""The operator's clone, asked with real git: what is meant, what is not committed, and what a host lacks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fabdjango.exceptions import ConfigError, FabdjangoError
from fabdjango.localgit import Clone, Commit, open_clone
from tests.local.sample import Repository

ELSEWHERE = "or let the host fetch by itself: git: {transfer: pull}"
BIG = "".join(f"it's line {number}\n" for number in range(20_000))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two commits in a folder with a space and a quote."""
    made = Repository(tmp_path / "ada's repo")
    made.commit({"one.txt": "it's one\n", "big.txt": BIG}, "It's the first")
    made.commit({"one.txt": "it's two\n"}, "It's the second")
    return made


def clone_of(repository: Repository | Path) -> Clone:
    """The clone, with nothing of this machine's configuration."""
    folder = repository if isinstance(repository, Path) else repository.path
    return open_clone(folder, {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"})


def copy(repository: Repository, folder: Path, *options: str) -> Path:
    """A clone of the repository that is made like a colleague's or a CI's."""
    repository.git("config", "uploadpack.allowFilter", "true")
    subprocess.run(
        ["git", "clone", "--quiet", "--no-local", *options, f"file://{repository.path}", folder],
        check=True,
        capture_output=True,
    )
    return folder


def mirror(path: Path) -> Path:
    """An empty bare repository."""
    subprocess.run(["git", "init", "--quiet", "--bare", path], check=True, capture_output=True)
    return path


def give(path: Path, pack: bytes, sha: str) -> None:
    """Put a thin pack into a bare repository, and see that it has everything of ``sha``."""
    for words in (
        ["index-pack", "--stdin", "--fix-thin", "--strict"],
        ["update-ref", f"refs/heads/{sha}", sha],
        ["fsck", "--strict", "--no-dangling"],
    ):
        done = subprocess.run(["git", *words], cwd=path, input=pack, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def refused(clone: Clone, ref: str) -> tuple[str, str]:
    """What is said of a ref that is not there."""
    with pytest.raises(FabdjangoError) as caught:
        clone.resolve(ref)
    return caught.value.message, caught.value.cure


# --- what is meant ----------------------------------------------------------------


def test_branches_tags_and_commits(repository: Repository) -> None:
    """A branch comes before a tag; a commit may be short; the usual branch is named where it is at the commit."""
    new, old = repository.git("rev-parse", "HEAD"), repository.git("rev-parse", "HEAD~1")
    repository.git("tag", "--annotate", "--message", "it's a tag", "v1's", old)
    repository.git("tag", "main", old)
    repository.git("branch", "it's/old", old)
    clone = clone_of(repository)
    assert clone.resolve("main") == Commit(new, "main")
    assert clone.resolve("it's/old") == Commit(old, "it's/old")
    assert clone.resolve("v1's") == Commit(old)
    assert clone.resolve(new[:7]) == Commit(new)
    assert clone.resolve(new.upper()) == Commit(new)
    assert clone.resolve(new, "main") == Commit(new, "main")
    assert clone.resolve(old, "main") == Commit(old)
    assert clone.resolve("HEAD", "main") == Commit(new, "main")
    assert clone.subject(old) == f"{old[:7]} It's the first"


def test_from_a_folder_below_and_from_a_hook(repository: Repository, tmp_path: Path) -> None:
    """Any folder of the work tree will do; the variables of a hook that starts us name another repository."""
    (repository.path / "a b").mkdir()
    other = mirror(tmp_path / "it's other")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_DIR": str(other), "GIT_INDEX_FILE": "x"}
    clone = open_clone(repository.path / "a b", environ)
    assert clone.resolve("main").sha == repository.git("rev-parse", "HEAD")


def test_what_is_not_there(repository: Repository, tmp_path: Path) -> None:
    """Each with what to do: names that are near, a branch that only the remote has, too short an id."""
    repository.git("branch", "it's/new")
    clone = clone_of(repository)
    fetch = "git fetch gets what others have pushed, or check the spelling"
    assert refused(clone, "it's/now") == (
        "your clone has no branch, tag or commit it's/now",
        f"did you mean it's/new?\n{fetch}",
    )
    assert refused(clone, "f" * 40) == (f"your clone has no branch, tag or commit {'f' * 40}", fetch)
    assert refused(clone, "--output=x") == (
        "'--output=x' is not a branch, a tag or a commit",
        "give a name as git branch, git tag or git log show it",
    )
    assert refused(clone_of(copy(repository, tmp_path / "b's")), "it's/new") == (
        "your clone has origin/it's/new, but no branch it's/new of its own",
        "make it: git branch it's/new origin/it's/new\nor name the commit",
    )


def test_an_id_that_is_too_short(repository: Repository) -> None:
    """Two objects begin with it."""
    seen: dict[str, str] = {}
    for number in range(3000):
        found = subprocess.run(
            ["git", "hash-object", "-w", "--stdin"],
            cwd=repository.path,
            input=f"{number}",
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if found[:4] in seen:
            assert refused(clone_of(repository), found[:4]) == (
                f"{found[:4]} is the beginning of several objects of your clone",
                "give more of the commit's id",
            )
            return
        seen[found[:4]] = found
    pytest.fail("no two ids began alike")


def test_nothing_to_deploy_from(tmp_path: Path, repository: Repository) -> None:
    """No folder, no repository, a bare one, no commit, no git, and ids of another kind."""
    folder = tmp_path / "it's empty"
    for make, message, cure in (
        (lambda: None, f"{folder} is not a folder", f"change fabdjango.git.clone\n{ELSEWHERE}"),
        (
            folder.mkdir,
            f"{folder} is not in a work tree of git",
            f"set fabdjango.git.clone to the folder of your clone, as seen from the fabfile\n{ELSEWHERE}",
        ),
        (
            lambda: mirror(folder),
            f"{folder} is not in a work tree of git",
            f"set fabdjango.git.clone to the folder of your clone, as seen from the fabfile\n{ELSEWHERE}",
        ),
    ):
        make()
        with pytest.raises(ConfigError) as caught:
            clone_of(folder)
        assert (caught.value.message, caught.value.cure) == (message, cure)
    assert refused(clone_of(Repository(tmp_path / "b's").path), "main") == (
        f"the clone {tmp_path / chr(98)}'s has no commit yet",
        "commit, then deploy",
    )
    subprocess.run(["git", "init", "--quiet", "--object-format=sha256", tmp_path / "c's"], check=True)
    with pytest.raises(ConfigError, match=r"has ids of another kind than SHA-1$"):
        clone_of(tmp_path / "c's")
    with pytest.raises(ConfigError, match=r"^git is not installed here, and git.transfer is push$"):
        open_clone(repository.path, {"PATH": str(tmp_path)})


# --- what is not committed -----------------------------------------------------------


def test_work_that_is_not_committed(repository: Repository) -> None:
    """Changes, staged or not, removed and renamed files, and files that git does not know; ignored ones do not count."""
    repository.commit({".gitignore": "ignored\n", "gone.txt": "it's gone", "old.txt": BIG[:5000]})
    clone = clone_of(repository)
    (repository.path / "ignored").write_text("x")
    clone.refuse_uncommitted()
    (repository.path / "one.txt").write_text("changed")
    (repository.path / "gone.txt").unlink()
    repository.git("mv", "old.txt", "it's new.txt")
    (repository.path / "a\nb").write_text("x")
    (repository.path / "staged").write_text("x")
    repository.git("add", "staged")
    assert sorted(clone.uncommitted()) == ["a\nb", "gone.txt", "it's new.txt", "one.txt", "staged"]
    (repository.path / "a folder").mkdir()
    (repository.path / "a folder/z").write_text("x")
    with pytest.raises(FabdjangoError) as caught:
        clone.refuse_uncommitted()
    error = caught.value
    assert error.message == "your clone has work that is not committed, and would not be deployed: 6 paths"
    assert error.output == "gone.txt\nit's new.txt\none.txt\nstaged\n'a\\nb'\nand 1 more"
    assert error.cure == (
        "commit it, or list it in .gitignore\nor take the commit without it: fab … deploy --allow-dirty"
    )


# --- what a host lacks ------------------------------------------------------------------


def test_a_pack_for_a_host_that_has_nothing_and_for_one_that_has_the_last(
    repository: Repository, tmp_path: Path
) -> None:
    """The second is thin: a change of one line in a large file is a few bytes; ids that nobody here knows do no harm."""
    host = mirror(tmp_path / "it's a host")
    clone = clone_of(repository)
    first = repository.git("rev-parse", "HEAD")
    give(host, clone.pack(first), first)
    second = repository.commit({"big.txt": BIG + "it's one more\n"})
    pack = clone.pack(second, ["f" * 40, "--output=/tmp/x", first])
    assert len(pack) < 700
    give(host, pack, second)
    # History was rewritten, and another one begun.
    repository.git("reset", "--quiet", "--hard", "HEAD~2")
    third = repository.commit({"big.txt": BIG + "it's another\n"})
    give(host, clone.pack(third, [second, first]), third)
    repository.git("checkout", "--quiet", "--orphan", "it's-new")
    fourth = repository.commit({"two.txt": "it's unrelated\n"})
    give(host, clone.pack(fourth, [third]), fourth)


def test_a_shallow_clone(repository: Repository, tmp_path: Path) -> None:
    """It can give what comes after a commit that the host has; for one that has not, it must be completed."""
    parent, head = repository.git("rev-parse", "HEAD~1"), repository.git("rev-parse", "HEAD")
    clone = clone_of(copy(repository, tmp_path / "it's shallow", "--depth=1"))
    with pytest.raises(FabdjangoError) as caught:
        clone.pack(head)
    assert (caught.value.message, caught.value.cure) == (
        "your clone is shallow, and the host lacks commits that are not in it",
        f"get them: git fetch --unshallow\n{ELSEWHERE}",
    )
    host = mirror(tmp_path / "it's a host")
    give(host, clone_of(repository).pack(parent), parent)
    give(host, clone.pack(head, [parent]), head)


def test_a_partial_clone(repository: Repository, tmp_path: Path) -> None:
    """It can give what it has; nothing is fetched behind the operator's back."""
    place = copy(repository, tmp_path / "it's partial", "--filter=blob:none")
    head = repository.git("rev-parse", "HEAD")
    clone = clone_of(place)
    with pytest.raises(FabdjangoError) as caught:
        clone.pack(head)
    # The blobs of HEAD are there, as they were checked out; the older one.txt is not.
    assert (caught.value.message, caught.value.cure) == (
        "your clone is partial: 1 objects that the host lacks are not in it",
        f"get them: git fetch --refetch --no-filter\n(git fetch --unshallow, if it is shallow too)\n{ELSEWHERE}",
    )
    host = mirror(tmp_path / "it's a host")
    parent = repository.git("rev-parse", "HEAD~1")
    give(host, clone_of(repository).pack(parent), parent)
    give(host, clone.pack(head, [parent]), head)
    subprocess.run(
        ["git", "-C", place, "fetch", "--quiet", "--refetch", "--no-filter"], check=True, capture_output=True
    )
    give(mirror(tmp_path / "b's"), clone.pack(head), head)


def test_a_clone_that_is_broken(repository: Repository) -> None:
    """What git says is shown."""
    blob = repository.git("rev-parse", "HEAD:one.txt")
    (repository.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(FabdjangoError) as caught:
        clone_of(repository).pack(repository.git("rev-parse", "HEAD"))
    assert caught.value.message == f"git pack-objects failed in the clone {repository.path}"
    assert caught.value.cure == "see whether the clone is whole: git fsck"
    assert blob in caught.value.output
