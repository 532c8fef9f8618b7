"""What people write."""

from django.db import models
from django.urls import reverse
from django.utils import timezone


class Post(models.Model):
    """An article. It is public from the moment `published` on."""

    title = models.CharField(max_length=200)
    slug = models.SlugField(unique=True)
    body = models.TextField()
    published = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        ordering = ("-published",)

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("posts:detail", args=[self.slug])
