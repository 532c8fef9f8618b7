from django.urls import path

from .views import front, release

app_name = "pages"
urlpatterns = [
    path("", front, name="front"),
    path("release.json", release, name="release"),
]
