from django.contrib import admin
from django.urls import include, path
from rest_framework.routers import DefaultRouter

from catalogue import views

router = DefaultRouter()
router.register("products", views.ProductViewSet)
urlpatterns = [
    path("", views.front),
    path("version", views.version),
    path("admin/", admin.site.urls),
    path("api/", include(router.urls)),
]
