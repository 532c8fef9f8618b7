"""The demo of this project: a sample Django project, its history of commits, and a deploy of them to this machine."""
