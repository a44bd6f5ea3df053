from django.db import models


class Page(models.Model):
    """What the actors found out about one page."""

    url = models.URLField(max_length=255, unique=True)
    words = models.PositiveIntegerField(null=True)
    longest_word = models.CharField(max_length=200, blank=True)
    counted_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("url",)

    def __str__(self) -> str:
        return self.url
