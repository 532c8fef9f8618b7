"""What git says of the folder that a fabric.yaml is written in, asked with real git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fabdjango.checkout import Remote, address_of, look
from fabdjango.exceptions import ConfigError
from tests.projects import commit

REMOTE = "git@example.com:team/it's.git"


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's configuration of git and ssh."""
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def git(folder: Path, *words: str) -> str:
    """Run git here."""
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_a_clone(tmp_path: Path) -> None:
    """Files that git knows or would take, from the top, also if asked from a folder below."""
    top = commit(tmp_path / "it's a shop", {"a b/manage.py": "it's", ".gitignore": "ignored\n", "top.txt": "☃"}, REMOTE)
    (top / "ignored").write_text("x")
    (top / "a b" / "new\n.py").write_text("x")
    (top / "node_modules").mkdir()
    (top / "node_modules" / "manage.py").write_text("x")
    found = look(top / "a b")
    assert (found.top, found.below, found.branch, found.has_commit) == (top, "a b", "main", True)
    assert found.snapshot.paths == (".gitignore", "a b/manage.py", "a b/new\n.py", "top.txt")
    assert found.tracked == {".gitignore", "a b/manage.py", "top.txt"}
    assert (found.snapshot.read("top.txt"), found.snapshot.read("a b/manage.py")) == ("☃", "it's")
    assert (found.snapshot.read("nothing"), found.snapshot.read("a b")) == (None, None)
    assert found.remote == Remote("origin", REMOTE, "", "")
    assert look(top).below == ""


def test_a_link_out_of_the_clone_is_not_read(tmp_path: Path) -> None:
    """Whatever it is called."""
    (tmp_path / "secret").write_text("it's secret")
    top = commit(tmp_path / "shop", {"a.txt": "it's a"})
    (top / "b.txt").symlink_to(tmp_path / "secret")
    (top / "c.txt").symlink_to("a.txt")
    (top / "d.txt").symlink_to("d.txt")
    found = look(top).snapshot
    assert [found.read(name) for name in ("b.txt", "c.txt", "d.txt")] == [None, "it's a", None]


def test_no_clone(tmp_path: Path) -> None:
    """The way to make one, and git's own word where it does not trust the folder."""
    folder = tmp_path / "it's plain"
    folder.mkdir()
    with pytest.raises(ConfigError) as caught:
        look(folder)
    assert caught.value.render() == (
        f"Error: {folder} is not in a git repository, and what is deployed are commits\n"
        " state: nothing was written (exit 1)\n"
        " do this: make one: git init && git add --all && git commit -m 'First commit'\n"
        "          (first list in .gitignore what does not belong there, such as .venv/, *.sqlite3 and files with secrets)"
    )


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything else."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^git is not installed here$"):
        look(tmp_path)


def test_a_clone_without_commit(tmp_path: Path) -> None:
    """The branch has a name already."""
    git(tmp_path, "init", "--quiet", "--initial-branch=it's")
    found = look(tmp_path)
    assert (found.branch, found.has_commit, found.remote) == ("it's", False, Remote(why="there is no remote"))


def test_branches(tmp_path: Path) -> None:
    """The remote's default is known in a clone; a detached head has no branch."""
    origin = commit(tmp_path / "origin", {"a.txt": "x"})
    git(origin, "branch", "-m", "it's-the-trunk")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(origin), str(clone))
    git(clone, "checkout", "--quiet", "-b", "feature/x")
    assert (look(clone).branch, look(clone).remote) == (
        "feature/x",
        Remote("origin", "", "the remote origin is a folder of this machine", "it's-the-trunk"),
    )
    git(clone, "checkout", "--quiet", "--detach")
    assert look(clone).branch == ""


def test_which_remote(tmp_path: Path) -> None:
    """That of the branch, else origin, else the first."""
    top = commit(tmp_path / "shop", {"a.txt": "x"})
    git(top, "remote", "add", "fork", "git@example.com:ada/shop.git")
    assert look(top).remote.name == "fork"
    git(top, "remote", "add", "origin", REMOTE)
    assert look(top).remote.name == "origin"
    git(top, "config", "branch.main.remote", "fork")
    assert look(top).remote.address == "git@example.com:ada/shop.git"


def test_an_abbreviation_of_the_operators_own(tmp_path: Path) -> None:
    """A host knows nothing of url.….insteadOf."""
    top = commit(tmp_path / "shop", {"a.txt": "x"}, "ours:shop.git")
    git(top, "config", "url.git@example.com:team/.insteadOf", "ours:")
    assert look(top).remote.address == "git@example.com:team/shop.git"


def test_an_alias_of_ssh_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of ~/.ssh/config: what ssh makes of the name is what a host needs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(
        '#!/bin/sh\n[ "$1 $2" = "-G --" ] || exit 1\ncase $3 in work) printf "hostname git.example.com\\nport 2222\\n";; *) printf "hostname %s\\nport 22\\n" "$3";; esac\n'
    )
    (programs / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    top = commit(tmp_path / "shop", {"a.txt": "x"}, "git@work:team/it's.git")
    assert look(top).remote.address == "ssh://git@git.example.com:2222/team/it's.git"
    git(top, "remote", "set-url", "origin", REMOTE)
    assert look(top).remote.address == REMOTE


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("git@github.com:team/blog.git", "git@github.com:team/blog.git"),
        ("example.com:it's/a blog.git", "example.com:it's/a blog.git"),
        ("ssh://ada@example.com:2222/srv/git/blog.git", "ssh://ada@example.com:2222/srv/git/blog.git"),
        ("git+ssh://git@example.com/blog.git", "ssh://git@example.com/blog.git"),
        ("ssh://git@[2001:db8::1]/blog.git", "ssh://git@[2001:db8::1]/blog.git"),
        ("https://github.com/team/blog.git", "https://github.com/team/blog.git"),
        ("https://ada:token@example.com:8443/team/blog", "https://example.com:8443/team/blog"),
        ("https://ghp_token@github.com/team/blog", "https://github.com/team/blog"),
        ("git://example.com/blog.git", "git://example.com/blog.git"),
    ],
)
def test_addresses_for_a_host(url: str, address: str) -> None:
    """As they are, less what is secret in them."""
    assert address_of(url) == (address, "")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("/srv/git/blog.git", "a folder of this machine"),
        ("../blog", "a folder of this machine"),
        ("./a:b", "a folder of this machine"),
        ("file:///srv/git/blog.git", "a folder of this machine"),
        ("ssh://git@localhost/blog.git", "on this machine"),
        ("http://127.0.0.1:3000/team/blog.git", "on this machine"),
        ("", "a folder of this machine"),
    ],
)
def test_addresses_that_no_host_can_reach(url: str, why: str) -> None:
    """Commits are pushed then."""
    assert address_of(url) == ("", why)
