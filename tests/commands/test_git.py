"""The shell that reads the repository on the host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabdjango.commands import git
from fabdjango.exceptions import ConfigError
from fabdjango.layout import Layout
from tests.conftest import LAYOUT, RELEASE, SHA, sample_settings, shell, shown
from tests.local.sample import Repository
from tests.test_escape import HOSTILE, special


def test_fetch_mirror() -> None:
    """Make the mirror if it is not there, and bring branches and tags in, unattended and within a time."""
    assert shown(git.fetch_mirror(sample_settings(), LAYOUT)) == shell("""
        # fetch: fetch from git@example.com:it's/blog.git
        mkdir -p -- '/srv/it'"'"'s here' '/srv/it'"'"'s here/releases' '/srv/it'"'"'s here/venvs' '/srv/it'"'"'s here/shared' '/srv/it'"'"'s here/run'
        if ! [ -e '/srv/it'"'"'s here/repo.git/HEAD' ]; then
          git init --quiet --bare -- '/srv/it'"'"'s here/repo.git'
        fi
        find '/srv/it'"'"'s here/repo.git' -name '*.lock' -type f -delete
        before=$(git --git-dir='/srv/it'"'"'s here/repo.git' for-each-ref)
        GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20' timeout -k 10 300 git --git-dir='/srv/it'"'"'s here/repo.git' -c gc.autoDetach=false -c maintenance.autoDetach=false -c core.fsync=all fetch --quiet --force --prune --no-recurse-submodules -- 'git@example.com:it'"'"'s/blog.git' '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*'
        [ "$before" != "$(git --git-dir='/srv/it'"'"'s here/repo.git' for-each-ref)" ] || unchanged "nothing new"
    """)


def test_a_repository_at_home() -> None:
    """A path below the home of the account that owns the site, and a root there too."""
    settings = sample_settings(repository="~/it's.git", git={"timeout": 5})
    body = git.fetch_mirror(settings, Layout(PurePosixPath("~/a b"), "blog")).body
    assert body == shell("""
        mkdir -p -- "$HOME"/'a b' "$HOME"/'a b/releases' "$HOME"/'a b/venvs' "$HOME"/'a b/shared' "$HOME"/'a b/run'
        if ! [ -e "$HOME"/'a b/repo.git/HEAD' ]; then
          git init --quiet --bare -- "$HOME"/'a b/repo.git'
        fi
        find "$HOME"/'a b/repo.git' -name '*.lock' -type f -delete
        before=$(git --git-dir="$HOME"/'a b/repo.git' for-each-ref)
        GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20' timeout -k 10 5 git --git-dir="$HOME"/'a b/repo.git' -c gc.autoDetach=false -c maintenance.autoDetach=false -c core.fsync=all fetch --quiet --force --prune --no-recurse-submodules -- "$HOME"/'it'"'"'s.git' '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*'
        [ "$before" != "$(git --git-dir="$HOME"/'a b/repo.git' for-each-ref)" ] || unchanged "nothing new"
    """)


def test_a_repository_that_looks_like_an_option() -> None:
    """It stands after --, where git takes nothing for an option."""
    body = git.list_remote(sample_settings(repository="--upload-pack=touch '/tmp/owned'")).body
    assert body == shell("""
        GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20' timeout -k 10 300 git ls-remote --heads --tags -- '--upload-pack=touch '"'"'/tmp/owned'"'"''
    """)


def test_receive() -> None:
    """What killed runs left is cleared; the commit is noted once it is whole; of those noted, the newest and the releases' stay."""
    step = git.receive(LAYOUT, b"PACK" * 700, SHA, "it's", ["f" * 40, SHA])
    assert step.feed == b"PACK" * 700
    assert shown(step) == shell(r"""
        # receive: receive 0123456789ab from the operator's clone (2.8 kB)
        # reads 2800 bytes
        mkdir -p -- '/srv/it'"'"'s here' '/srv/it'"'"'s here/releases' '/srv/it'"'"'s here/venvs' '/srv/it'"'"'s here/shared' '/srv/it'"'"'s here/run'
        if ! [ -e '/srv/it'"'"'s here/repo.git/HEAD' ]; then
          git init --quiet --bare -- '/srv/it'"'"'s here/repo.git'
        fi
        find '/srv/it'"'"'s here/repo.git' -name '*.lock' -type f -delete
        find '/srv/it'"'"'s here/repo.git/objects' -name 'tmp_*' -type f -delete
        git --git-dir='/srv/it'"'"'s here/repo.git' -c gc.autoDetach=false -c maintenance.autoDetach=false -c core.fsync=all index-pack --stdin --fix-thin --strict=badDate=ignore,badEmail=ignore,badName=ignore,badTimezone=ignore,missingEmail=ignore,missingNameBeforeEmail=ignore,missingSpaceBeforeDate=ignore,missingSpaceBeforeEmail=ignore,multipleAuthors=ignore,zeroPaddedDate=ignore,zeroPaddedFilemode=ignore >/dev/null
        git --git-dir='/srv/it'"'"'s here/repo.git' rev-list --objects --quiet 0123456789abcdef0123456789abcdef01234567 --not --all || refuse 'objects of the commit are missing'
        git --git-dir='/srv/it'"'"'s here/repo.git' -c gc.autoDetach=false -c maintenance.autoDetach=false -c core.fsync=all update-ref refs/fabdjango/pushed/0123456789abcdef0123456789abcdef01234567 0123456789abcdef0123456789abcdef01234567
        git --git-dir='/srv/it'"'"'s here/repo.git' -c gc.autoDetach=false -c maintenance.autoDetach=false -c core.fsync=all update-ref 'refs/heads/it'"'"'s' 0123456789abcdef0123456789abcdef01234567 || note 'the mirror has another branch in the way of it'"'"'s, which stays as it is'
        n=0
        for ref in $(git --git-dir='/srv/it'"'"'s here/repo.git' for-each-ref --sort=-committerdate --format='%(refname)' refs/fabdjango/pushed); do
          n=$((n + 1)); [ $n -gt 50 ] || continue
          case ' 0123456789abcdef0123456789abcdef01234567 ffffffffffffffffffffffffffffffffffffffff ' in *" ${ref##*/} "*) ;; *) git --git-dir='/srv/it'"'"'s here/repo.git' update-ref -d "$ref";; esac
        done
        git --git-dir='/srv/it'"'"'s here/repo.git' -c gc.autoDetach=false -c maintenance.autoDetach=false -c core.fsync=all gc --auto --quiet
    """)
    assert "heads" not in git.receive(LAYOUT, b"PACK", SHA).body


def test_receiving_again_and_again(tmp_path: Path) -> None:
    """Old flaws are taken; a commit whose objects are missing is not noted; a branch may be in the way; the rest grows old."""
    layout = Layout(PurePosixPath(tmp_path / "it's here"), "blog")
    mirror = Path(layout.mirror)
    clone = Repository(tmp_path / "it's a clone")

    def receive(
        pack: bytes, sha: str, branch: str = "", keep: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        body = f'note() {{ echo "note: $*"; }}; refuse() {{ echo "$*"; exit 1; }}; set -e\n{git.receive(layout, b"", sha, branch, keep).body}'
        done = subprocess.run(["sh", "-c", body], input=pack, capture_output=True, check=False)
        return subprocess.CompletedProcess([], done.returncode, done.stdout.decode(), done.stderr.decode())

    def pack(*revisions: str) -> bytes:
        words = ["git", "pack-objects", "--revs", "--thin", "--stdout", "-q"]
        text = "\n".join(revisions).encode()
        return subprocess.run(words, cwd=clone.path, input=text, capture_output=True, check=True).stdout

    def refs() -> list[str]:
        words = ["git", "for-each-ref", "--format=%(refname)"]
        return subprocess.run(words, cwd=mirror, capture_output=True, text=True, check=True).stdout.split()

    first, second = clone.commit({"a b": "it's one"}), clone.commit({"a b": "it's two"})
    done = receive(pack(second, f"^{first}"), second)
    assert done.returncode != 0
    assert refs() == []
    done = receive(pack(second)[:-30], second)
    assert done.returncode != 0
    assert refs() == []
    (mirror / "objects/pack/tmp_pack_x").write_text("left by a killed run")
    assert receive(pack(first), first, "a").returncode == 0
    assert not list((mirror / "objects/pack").glob("tmp_*"))
    done = receive(pack(second, f"^{first}"), second, "a/b")
    assert (done.returncode, done.stdout) == (
        0,
        "note: the mirror has another branch in the way of a/b, which stays as it is\n",
    )
    pushed = "refs/fabdjango/pushed"
    assert refs() == [*sorted((f"{pushed}/{first}", f"{pushed}/{second}")), "refs/heads/a"]
    # A tree as old versions of git wrote it.
    tree = b"040000 d\0" + bytes.fromhex(clone.git("rev-parse", "HEAD^{tree}"))
    words = ["git", "hash-object", "-t", "tree", "--literally", "-w", "--stdin"]
    flawed = subprocess.run(words, cwd=clone.path, input=tree, capture_output=True, check=True).stdout.decode().strip()
    old = clone.git("commit-tree", flawed, "-p", second, "-m", "It's old")
    done = receive(pack(old, f"^{second}"), old)
    assert done.returncode == 0, done.stderr
    for number in range(55):
        subprocess.run(["git", "update-ref", f"{pushed}/{number:040}", second], cwd=mirror, check=True)
    assert receive(pack(old), old, keep=(first,)).returncode == 0
    left = refs()
    assert {f"{pushed}/{old}", f"{pushed}/{first}"} < set(left)
    # The two that stay in any case may be among the newest.
    assert 50 + 1 <= len(left) <= 50 + 2 + 1


def test_clone_mirror() -> None:
    """The same as a fetch, under its own name."""
    step = git.clone_mirror(sample_settings(), LAYOUT)
    assert step.body == git.fetch_mirror(sample_settings(), LAYOUT).body
    assert (step.name, step.title) == ("clone", "clone git@example.com:it's/blog.git as a bare mirror")


def test_list_remote() -> None:
    """Branches and tags, without writing anything; its output is for a parser."""
    step = git.list_remote(sample_settings())
    assert step.capture
    assert shown(step) == shell("""
        # fetch: look at git@example.com:it's/blog.git
        GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20' timeout -k 10 300 git ls-remote --heads --tags -- 'git@example.com:it'"'"'s/blog.git'
    """)


def test_export_release() -> None:
    """The tree into its own directory by an index of its own, and compared with what git has."""
    assert shown(git.export_release(LAYOUT, RELEASE, SHA)) == shell("""
        # export: export 0123456789ab into releases/7-0123456789ab
        mkdir -p -- '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango'
        GIT_INDEX_FILE='/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/index' git --git-dir='/srv/it'"'"'s here/repo.git' --work-tree='/srv/it'"'"'s here/releases/7-0123456789ab' -c core.bare=false -c core.fsync=none read-tree --reset 0123456789abcdef0123456789abcdef01234567
        GIT_INDEX_FILE='/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/index' git --git-dir='/srv/it'"'"'s here/repo.git' --work-tree='/srv/it'"'"'s here/releases/7-0123456789ab' -c core.bare=false -c core.fsync=none -c checkout.workers=2 -c checkout.thresholdForParallelism=1000 checkout-index --all --force --quiet --index
        [ -z "$(GIT_INDEX_FILE='/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/index' git --git-dir='/srv/it'"'"'s here/repo.git' --work-tree='/srv/it'"'"'s here/releases/7-0123456789ab' -c core.bare=false -c core.fsync=none diff-files --name-only)" ] || refuse "the exported files differ from the commit"
        rm -f -- '/srv/it'"'"'s here/releases/7-0123456789ab/.fabdjango/index'
    """)


def test_thousands_of_files_are_written_by_two_processes(tmp_path: Path) -> None:
    """What is there then is what git has, with links and modes; a file whose content is lost is a failure, as with one process."""
    layout = Layout(PurePosixPath(tmp_path / "it's here"), "blog")
    clone = Repository(tmp_path / "it's a clone")
    clone.commit({f"{number % 40} it's/f\n{number}": f"{number}\n" for number in range(1500)})
    (clone.path / "0 it's/run").write_text("#!/bin/sh\n")
    (clone.path / "0 it's/run").chmod(0o755)
    (clone.path / "0 it's/link").symlink_to("../1 it's")
    sha = clone.commit({})
    subprocess.run(["git", "clone", "-q", "--bare", "--", clone.path, str(layout.mirror)], check=True)

    def export(release: str) -> subprocess.CompletedProcess[str]:
        body = f'refuse() {{ echo "$*"; exit 1; }}; set -e\n{git.export_release(layout, release, sha).body}'
        trace = {**os.environ, "GIT_TRACE2_EVENT": str(tmp_path / release)}
        return subprocess.run(["sh", "-c", body], capture_output=True, text=True, check=False, env=trace)

    assert export("1-whole").returncode == 0
    assert (tmp_path / "1-whole").read_text().count('"child_start"') == 2
    target = Path(layout.release("1-whole"))
    words = ["diff", "--recursive", "--no-dereference", "--exclude=.git", "--exclude=.fabdjango"]
    assert subprocess.run([*words, clone.path, target], check=False).returncode == 0
    assert (target / "0 it's/run").stat().st_mode & 0o777 == 0o755
    assert (target / "0 it's/link").is_symlink()
    lost = clone.git("rev-parse", f"{sha}:7 it's/f\n1447")
    (Path(layout.mirror) / "objects" / lost[:2] / lost[2:]).unlink()
    done = export("2-broken")
    assert done.returncode != 0
    assert lost in done.stderr


def test_status() -> None:
    """Branches of the mirror and the release that serves."""
    assert shown(git.status(LAYOUT)) == shell(r"""
        # status: branches of the mirror, and the release that serves
        [ -e '/srv/it'"'"'s here/repo.git/HEAD' ] || refuse 'there is no mirror yet: run git.clone first'
        git --git-dir='/srv/it'"'"'s here/repo.git' for-each-ref --sort=-committerdate --count=15 --format='%(objectname:short=12) %(committerdate:short) %(refname:lstrip=2)' refs/heads
        if [ -L '/srv/it'"'"'s here/current' ]; then
          printf 'current: %s\n' "$(basename -- "$(readlink '/srv/it'"'"'s here/current')")"
        fi
    """)


def test_worktree_changes() -> None:
    """Files of the current release that are not as committed."""
    assert git.worktree_changes(LAYOUT) == shell("""
        git --git-dir='/srv/it'"'"'s here/repo.git' --work-tree='/srv/it'"'"'s here/current' -c core.bare=false diff --name-only "$sha" -- .
    """)


def test_log() -> None:
    """Of a branch with a quote in its name."""
    assert shown(git.log(LAYOUT, "it's", 5)) == shell("""
        # log: log of it's
        [ -e '/srv/it'"'"'s here/repo.git/HEAD' ] || refuse 'there is no mirror yet: run git.clone first'
        sha=$(git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'refs/heads/it'"'"'s^{commit}' || git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'refs/tags/it'"'"'s^{commit}' || git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'it'"'"'s^{commit}') || refuse 'there is no branch, tag or commit it'"'"'s in the mirror: run git.fetch, or check the spelling'
        git --git-dir='/srv/it'"'"'s here/repo.git' --no-pager log --max-count=5 '--format=%h %cs %an: %s' "$sha"
    """)


def test_show_current() -> None:
    """Of the release that serves."""
    assert shown(git.show(LAYOUT, "current")) == shell("""
        # show: show current
        [ -e '/srv/it'"'"'s here/repo.git/HEAD' ] || refuse 'there is no mirror yet: run git.clone first'
        [ -L '/srv/it'"'"'s here/current' ] || refuse 'no release serves yet'
        sha=$(basename -- "$(readlink '/srv/it'"'"'s here/current')")
        sha=$(git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet "${sha#*-}^{commit}") || refuse 'the commit of the current release is not in the mirror'
        git --git-dir='/srv/it'"'"'s here/repo.git' --no-pager show --stat --patch --no-color "$sha"
    """)


def test_head() -> None:
    """The full id."""
    assert shown(git.head(LAYOUT, "it's")) == shell("""
        # head: commit of it's
        [ -e '/srv/it'"'"'s here/repo.git/HEAD' ] || refuse 'there is no mirror yet: run git.clone first'
        sha=$(git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'refs/heads/it'"'"'s^{commit}' || git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'refs/tags/it'"'"'s^{commit}' || git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'it'"'"'s^{commit}') || refuse 'there is no branch, tag or commit it'"'"'s in the mirror: run git.fetch, or check the spelling'
        git --git-dir='/srv/it'"'"'s here/repo.git' --no-pager rev-parse --verify "$sha"
    """)


def test_diff() -> None:
    """Between what serves and a branch."""
    assert shown(git.diff(LAYOUT, "current", "it's")) == shell("""
        # diff: changes from current to it's
        [ -e '/srv/it'"'"'s here/repo.git/HEAD' ] || refuse 'there is no mirror yet: run git.clone first'
        [ -L '/srv/it'"'"'s here/current' ] || refuse 'no release serves yet'
        old=$(basename -- "$(readlink '/srv/it'"'"'s here/current')")
        old=$(git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet "${old#*-}^{commit}") || refuse 'the commit of the current release is not in the mirror'
        new=$(git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'refs/heads/it'"'"'s^{commit}' || git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'refs/tags/it'"'"'s^{commit}' || git --git-dir='/srv/it'"'"'s here/repo.git' rev-parse --verify --quiet 'it'"'"'s^{commit}') || refuse 'there is no branch, tag or commit it'"'"'s in the mirror: run git.fetch, or check the spelling'
        git --git-dir='/srv/it'"'"'s here/repo.git' --no-pager diff --no-color --no-ext-diff "$old" "$new"
    """)


@pytest.mark.parametrize(
    "text", ["main", "it's", "feature/x-1", "v1.0", "0123456", "übung", "a;b$(id)", "a@b", "HEAD", "#1"]
)
def test_a_ref(text: str) -> None:
    """What git takes as a name is taken, however odd; it is quoted wherever it goes."""
    assert git.read_ref(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-x",
        "--upload-pack=id",
        "a b",
        "a..b",
        "a~1",
        "a^",
        "a:b",
        "a*",
        "a?",
        "a[",
        "a\\b",
        "/a",
        "a/",
        "a//b",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "a.",
        "@",
        "a@{1}",
        "a\nb",
        "a\0b",
        "\x7f",
        "\udcff",
    ],
)
def test_what_is_no_ref(text: str) -> None:
    """What git would take for an option, a range or several things is refused, and shown as it was typed."""
    with pytest.raises(ConfigError) as caught:
        git.read_ref(text)
    assert caught.value.message == f"{text!r} is not a branch, a tag or a commit"


@given(
    texts=st.lists(
        st.one_of(special, st.sampled_from(HOSTILE)).filter(lambda text: "\0" not in text and "\udcff" not in text),
        max_size=3,
    )
)
def test_git_agrees(texts: list[str]) -> None:
    """Whatever we let through is a name of a branch to git itself."""
    for text in texts:
        try:
            name = git.read_ref(text)
        except ConfigError:
            continue
        done = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
        assert done.returncode == 0
