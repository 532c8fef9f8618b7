from django.apps import AppConfig


class PostsConfig(AppConfig):
    """What the blog is made of."""

    name = "posts"
