"""Settings that are a class of django-configurations."""

from __future__ import annotations

import dataclasses

from tests.onhost.conftest import SETTINGS, Project

CLASSES = "from configurations import Configuration\n\n\nclass {}(Configuration):\n{}"


def as_class(project: Project, name: str) -> Project:
    """The same project with its settings in a class."""
    body = "".join(f"    {line}\n" for line in SETTINGS.splitlines() if line)
    (project.path / "blog" / "settings.py").write_text(CLASSES.format(name, body), encoding="utf-8")
    return dataclasses.replace(project, environ={"DJANGO_CONFIGURATION": "Live"})


def test_the_start_of_django_and_a_migration(lite: Project) -> None:
    """The class that the variable names is taken, as manage.py and wsgi.py would."""
    project = as_class(lite, "Live")
    assert project.plan()["known"] == ["posts.0001_initial"]
    status, output, answer = project.migrate()
    assert (status, answer["migrations"]) == (0, ["posts.0001_initial"]), output


def test_a_class_that_is_not_there(lite: Project) -> None:
    """Its own message says so."""
    status, output = as_class(lite, "Other").run("reverse_plan", target_known=[])
    assert status == 1
    assert "Couldn't find configuration 'Live'" in output
