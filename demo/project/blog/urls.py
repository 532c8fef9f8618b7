"""The addresses of the site."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("pages.urls")),
    path("posts/", include("posts.urls")),
    path("admin/", admin.site.urls),
]
