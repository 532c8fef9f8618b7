from django.core.management.base import BaseCommand

from posts.models import Post


class Command(BaseCommand):
    """A command of the project's own, to be run on a server."""

    help = "Prints the number of posts."

    def handle(self, *args, **options):
        self.stdout.write(str(Post.objects.count()))
