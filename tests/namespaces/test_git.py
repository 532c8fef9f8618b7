"""What the tasks of git run on a host."""

import pytest

import fabdjango
from fabdjango.exceptions import ConfigError
from tests.namespaces.text import SITE, joined, transcript

HOME = {**SITE, "root": "~/the blog"}


def test_clone_makes_a_bare_mirror_under_the_lock() -> None:
    """The address and the folder are quoted; git neither asks nor waits."""
    assert transcript(fabdjango.git["clone"], HOME) == joined(
        """\
        == clone (locked)
        -- clone: clone ssh://git@example.com/it's here.git as a bare mirror
        mkdir -p -- "$HOME"/'the blog' "$HOME"/'the blog/releases' "$HOME"/'the blog/venvs'
            "$HOME"/'the blog/shared' "$HOME"/'the blog/run'
        if ! [ -e "$HOME"/'the blog/repo.git/HEAD' ]; then
        | git init --quiet --bare -- "$HOME"/'the blog/repo.git'
        fi
        find "$HOME"/'the blog/repo.git' -name '*.lock' -type f -delete
        before=$(git --git-dir="$HOME"/'the blog/repo.git' for-each-ref)
        GIT_TERMINAL_PROMPT=0 GIT_ASKPASS=/bin/false SSH_ASKPASS=/bin/false
            GIT_SSH_COMMAND='ssh -o BatchMode=yes -o ConnectTimeout=20'
            timeout -k 10 300 git --git-dir="$HOME"/'the blog/repo.git'
            -c gc.autoDetach=false -c maintenance.autoDetach=false -c core.fsync=all
            fetch --quiet --force --prune --no-recurse-submodules --
            'ssh://git@example.com/it'"'"'s here.git' '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*'
        [ "$before" != "$(git --git-dir="$HOME"/'the blog/repo.git' for-each-ref)" ] || unchanged "nothing new"
        """
    )


def test_log_resolves_a_branch_before_a_tag_before_a_commit() -> None:
    """A branch called like an attack is only a name."""
    assert transcript(fabdjango.git["log"], HOME, ref="feature/$(id)", count=3) == joined(
        """\
        == log
        -- log: log of feature/$(id)
        [ -e "$HOME"/'the blog/repo.git/HEAD' ] || refuse 'there is no mirror yet: run git.clone first'
        sha=$(git --git-dir="$HOME"/'the blog/repo.git' rev-parse --verify --quiet 'refs/heads/feature/$(id)^{commit}'
            || git --git-dir="$HOME"/'the blog/repo.git' rev-parse --verify --quiet 'refs/tags/feature/$(id)^{commit}'
            || git --git-dir="$HOME"/'the blog/repo.git' rev-parse --verify --quiet 'feature/$(id)^{commit}')
            || refuse 'there is no branch, tag or commit feature/$(id) in the mirror: run git.fetch, or check the spelling'
        git --git-dir="$HOME"/'the blog/repo.git' --no-pager log --max-count=3 '--format=%h %cs %an: %s' "$sha"
        """
    )


@pytest.mark.parametrize("ref", ["--upload-pack=touch /tmp/x", "-", "a b", "a..b", "a^b", "x.lock", "@{1}", "a\nb", ""])
def test_what_is_not_a_name_never_reaches_a_host(ref: str) -> None:
    """Options and expressions are refused before anything is built."""
    with pytest.raises(ConfigError, match="is not a branch, a tag or a commit"):
        transcript(fabdjango.git["show"], HOME, ref=ref)
