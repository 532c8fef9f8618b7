"""What the tasks of django run on a host."""

import pytest

import fabdjango
from fabdjango.exceptions import ConfigError
from tests.namespaces.text import SITE, joined, transcript

NEED = (
    "[ -e '/srv/the blog/current/.fabdjango/run' ] || "
    "refuse 'there is no such release yet: run deploy, or git.checkout and venv.install'"
)


def test_a_management_command_is_words_and_never_shell() -> None:
    """The string is split as a shell would split it; what it holds is not expanded."""
    assert transcript(fabdjango.django["manage"], command="loaddata 'first posts' $(id)") == joined(
        f"""\
        == manage
        -- manage: manage.py loaddata 'first posts' $(id)
        {NEED}
        timeout -k 10 1800 /bin/sh '/srv/the blog/current/.fabdjango/run' python manage.py
            loaddata 'first posts' '$(id)'
        """
    )


@pytest.mark.parametrize("command", ["shell -c 'print(1)", ""])
def test_what_cannot_be_split_is_refused(command: str) -> None:
    """A quote that does not close, and nothing at all."""
    with pytest.raises(ConfigError):
        transcript(fabdjango.django["manage"], command=command)


def test_settings_are_replaced_as_a_whole_and_not_shown() -> None:
    """Both files hide, and are readable by owner and group at most."""
    values = {**SITE, "env_file": "production.env", "local_settings": "local_settings.py.j2"}
    assert transcript(fabdjango.django["settings"], values) == joined(
        """\
        == settings (locked)
        -- settings: write .env and local_settings.py for the next release
        replace '/srv/the blog/shared/.env' 640 <<'EOF'
        (26 bytes, hidden)
        EOF
        replace '/srv/the blog/shared/local_settings.py' 640 <<'EOF'
        (21 bytes, hidden)
        EOF
        [ "$changed_files" ] || unchanged "as before"
        """
    )


def test_shell_gets_a_terminal() -> None:
    """The whole line is one word for the login shell, whatever that is."""
    assert transcript(fabdjango.django["shell"], release="7-0123456789ab") == (
        "== terminal\nexec /bin/sh '/srv/the blog/releases/7-0123456789ab/.fabdjango/run' python manage.py shell\n"
    )


def test_an_id_that_is_a_path_is_refused() -> None:
    """Only ids of releases name releases."""
    with pytest.raises(ConfigError, match="is not the id of a release"):
        transcript(fabdjango.django["migrate"], release="../../etc")
