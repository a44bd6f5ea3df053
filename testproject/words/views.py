from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from .forms import PageForm
from .models import Page
from .tasks import count_words

FABLES = {
    "the-hare-and-the-tortoise": "The Hare and the Tortoise",
    "the-crow-and-the-pitcher": "The Crow and the Pitcher",
    "the-ants-and-the-grasshopper": "The Ants and the Grasshopper",
    "the-bundle-of-sticks": "The Bundle of Sticks",
}


def index(request: HttpRequest) -> HttpResponse:
    """Show what was counted; a posted URL is counted in the background."""
    form = PageForm(request.POST or None)
    if form.is_valid():
        message = count_words.send(form.cleaned_data["url"])
        messages.success(request, f"Sent {message}. Reload the page to see the count.")
        return redirect("words:index")
    context = {"fables": FABLES, "form": form, "pages": Page.objects.all()}
    return render(request, "words/index.html", context)


def fable(request: HttpRequest, slug: str) -> HttpResponse:
    if slug not in FABLES:
        raise Http404(f"There is no fable {slug!r}.")
    return render(request, f"words/fables/{slug}.html", {"title": FABLES[slug]})
