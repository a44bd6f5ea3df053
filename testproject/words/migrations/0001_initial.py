from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Page",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("url", models.URLField(max_length=255, unique=True)),
                ("words", models.PositiveIntegerField(null=True)),
                ("longest_word", models.CharField(blank=True, max_length=200)),
                ("counted_at", models.DateTimeField(auto_now=True)),
            ],
            options={
                "ordering": ("url",),
            },
        ),
    ]
