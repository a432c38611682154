"""What holds for every test."""

import os

# A key of whoever runs the tests must not buy anything.
for name in ("ELEVENLABS_API_KEY", "CROSSCUT_ELEVENLABS_API_KEY"):
    os.environ.pop(name, None)
