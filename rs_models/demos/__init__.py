"""What the Spaces share: reading uploads, models by name, pictures of features and of signals.

A Space itself is a folder under `spaces/` whose `app.py` lays out a page; it is uploaded as it is
and imports from here, since a Space cannot import its neighbours.
"""
