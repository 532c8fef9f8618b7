from django.utils import timezone
from django.views.generic import DetailView, ListView

from .models import Post


class Published:
    """Leaves out what is not public yet."""

    def get_queryset(self):
        return Post.objects.filter(published__lte=timezone.now())


class PostList(Published, ListView):
    """All posts, newest first."""

    paginate_by = 20


class PostDetail(Published, DetailView):
    """One post."""
