from django.conf import settings

from .version import EDITION


def site(request):
    """Name the blog, and the code that shows it, on every page."""
    return {"blog_title": settings.BLOG_TITLE, "release": settings.RELEASE, "edition": EDITION}
