from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0002_product_price"), ("orders", "0001_initial")]
    operations = [
        migrations.CreateModel(
            "Line",
            [
                ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True, verbose_name="ID")),
                ("amount", models.PositiveIntegerField(default=1)),
                ("order", models.ForeignKey(on_delete=models.deletion.CASCADE, to="orders.order")),
                ("product", models.ForeignKey(on_delete=models.deletion.PROTECT, to="catalogue.product")),
            ],
        )
    ]
