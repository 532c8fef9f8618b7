"""What is refused before any host is asked."""

from __future__ import annotations

from typing import Any

import pytest

from fabdjango import recipes
from fabdjango.exceptions import ConfigError
from tests.conftest import sample_settings

REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"hooks": {"before_colectstatic": ["ls"]}}, "did you mean before_collectstatic"),
    ({"hooks": {"later": ["ls"]}}, "before_ or after_ one of"),
    ({"shared": ["media/", "media/it's"]}, "take media/it's out"),
    ({"shared": ["../media"]}, "is not a path inside the commit"),
    ({"processes": {"web": {"command": "sleep 1"}}}, "another name"),
    ({"gunicorn": {"options": {"import": 1}}}, "is not the name of a gunicorn setting"),
    ({"gunicorn": {"bind": "8000"}}, "for instance bind"),
    ({"gunicorn": {"app": "blog.wsgi; id"}}, "for instance app"),
    ({"django": {"manage": "/srv/manage.py"}}, "for instance manage"),
    ({"local_settings_path": "../x.py"}, "inside the commit"),
    ({"environment": {"A-B": "1"}}, "letters, digits and _"),
    ({"root": "/srv/{project}/../../etc"}, "for instance root"),
    ({"repository": "https://ann:s3cret@example.com/blog.git"}, "deploy key"),
    ({"repository": "https://t0ken@example.com/blog.git"}, "deploy key"),
)


@pytest.mark.parametrize(("values", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_refused_before_a_host_is_asked(values: dict[str, Any], told: str) -> None:
    """The error or its cure says what to change; a password in it is not repeated."""
    with pytest.raises(ConfigError) as caught:
        recipes.check_settings(sample_settings(**values))

    text = caught.value.render()
    assert told in text
    assert "s3cret" not in text
    assert "t0ken" not in text


def test_an_account_is_no_password() -> None:
    """An ssh address names one."""
    recipes.check_settings(sample_settings(repository="ssh://git@example.com:2222/it's/blog.git"))
    recipes.check_settings(sample_settings(repository="git@example.com:it's/blog.git"))
