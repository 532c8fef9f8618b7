from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0001_initial")]
    operations = [
        migrations.AddField("product", "price", models.DecimalField(max_digits=10, decimal_places=2, default=0)),
        migrations.AddField("product", "description", models.TextField(blank=True, default="", db_default="")),
    ]
