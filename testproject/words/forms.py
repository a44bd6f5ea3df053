from django import forms


class PageForm(forms.Form):
    url = forms.URLField(label="Address of a page", assume_scheme="https")
