from django.apps import AppConfig


class PagesConfig(AppConfig):
    """The front page and what all pages share."""

    name = "pages"
