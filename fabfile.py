"""How a project writes its fabfile; fabric.yaml beside it says what is deployed where."""

from fabdjango import ns

__all__ = ["ns"]
