from django.db import models


class Product(models.Model):
    name = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    description = models.TextField(blank=True, default="", db_default="")
    added = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return self.name
