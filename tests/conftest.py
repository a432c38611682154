"""What holds for every test."""

import os

# What whoever runs the tests may buy or write elsewhere is nothing for tests.
for name in list(os.environ):
    if name in ("ELEVENLABS_API_KEY", "CROSSCUT_ELEVENLABS_API_KEY") or name.startswith(
        ("CROSSCUT_GOOGLE_", "GOOGLE_")
    ):
        os.environ.pop(name)
