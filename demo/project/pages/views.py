from django.conf import settings
from django.http import JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from posts.models import Post

from .version import EDITION


@never_cache
def front(request):
    """Show which release answers, and the newest posts."""
    return render(request, "pages/front.html", {"posts": Post.objects.filter(published__lte=timezone.now())[:5]})


@never_cache
def release(request):
    """Tell the front page's script which release answers now."""
    return JsonResponse({"release": settings.RELEASE, "edition": EDITION})
