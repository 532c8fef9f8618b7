import markdown
import requests
import shopdep
from django.http import HttpResponse
from django.shortcuts import render
from rest_framework import serializers, viewsets

from catalogue.models import Product
from shop.marker import MARKER


class ProductSerializer(serializers.ModelSerializer):
    class Meta:
        model = Product
        fields = ["name", "price", "description"]


class ProductViewSet(viewsets.ReadOnlyModelViewSet):
    queryset = Product.objects.all()
    serializer_class = ProductSerializer
    filterset_fields = ["name"]


def front(request):
    text = markdown.markdown(f"*{Product.objects.count()}* products, version **{MARKER}**")
    agent = requests.utils.default_user_agent()
    return render(request, "catalogue/front.html", {"text": text, "agent": agent})


def version(request):
    """The commit in memory, and the dependency that it was installed with."""
    return HttpResponse(f"{MARKER} {shopdep.VERSION}", content_type="text/plain")
