"""What the tasks of supervisor run on a host with Debian's supervisor."""

import pytest

import fabdjango
from fabdjango.exceptions import ConfigError
from tests.namespaces.text import joined, transcript


def test_configure_checks_the_file_before_it_is_written() -> None:
    """One bad file would make supervisor refuse everybody's."""
    assert transcript(fabdjango.supervisor["configure"]) == joined(
        r"""
        == supervisor-check (locked)
        -- supervisor-check: supervisor reads blog.conf
        "$(sed -n '1s/^#! *\([^ ]*\).*/\1/p' "$(command -v supervisord)")" - # Read a program file
            with supervisor's own parser; the words of its complaint are the output.
        -- configure as root: write /etc/supervisor/conf.d/blog.conf
        replace /etc/supervisor/conf.d/blog.conf 644 <<'EOF'
        (1013 bytes)
        EOF
        [ "$changed_files" ] || unchanged "as before"
        """.removeprefix("\n")
    )


@pytest.mark.parametrize(("verb", "as_it_was"), [("start", "already started"), ("stop", "not running")])
def test_start_and_stop_of_what_is_so_already_are_unchanged(verb: str, as_it_was: str) -> None:
    """supervisorctl calls that an error; any other error is one."""
    assert transcript(fabdjango.supervisor[verb], only="worker") == joined(
        f"""\
        == {verb} (locked)
        -- {verb} as root: {verb} blog:blog-worker
        out=$(supervisorctl {verb} blog:blog-worker) && done=1 || done=
        printf "%s\\n" "$out"
        [ "$done" ] || [ -z "$(printf "%s\\n" "$out" | grep -v '{as_it_was}')" ]
        case $out in ''|*'{as_it_was}'*) unchanged '{as_it_was}';; esac
        """
    )


def test_restart_is_one_restart_and_waits() -> None:
    """update restarts a group whose file changed, so restart comes only when it did not."""
    assert transcript(fabdjango.supervisor["restart"]) == joined(
        """\
        == restart (locked)
        -- restart as root: restart blog:*
        out=$(supervisorctl reread) || { printf '%s\\n' "$out"; exit 1; }
        case $out in *ERROR*) printf "%s\\n" "$out"; exit 1;; esac
        changed=$(supervisorctl update blog) || { printf '%s\\n' "$changed"; exit 1; }
        if [ "$changed" ]; then printf "%s\\n" "$changed"; else supervisorctl restart 'blog:*'; fi
        -- running as root: blog:* stays up
        n=0
        while :; do
        | s=$(supervisorctl status 'blog:*') || :
        | case $s in *FATAL*|*"no such"*|*refused*) printf '%s\\n' "$s"; refuse 'a program of the site does not stay up';; esac
        | printf '%s\\n' "$s" | grep -qv ' RUNNING ' || break
        | n=$((n + 1)); [ $n -lt 300 ] || { printf '%s\\n' "$s"; refuse 'the programs of the site do not come up'; }
        | sleep 0.2
        done
        """
    )


def test_a_program_that_the_site_does_not_have_is_refused() -> None:
    """A word from the command line never names another's program."""
    with pytest.raises(ConfigError, match="the site has no program 'other; id'"):
        transcript(fabdjango.supervisor["stop"], only="other; id")
