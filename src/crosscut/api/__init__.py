"""The REST API: HTTP outside, a `Service` inside; it holds no state of its own beyond rate counters."""

from crosscut.api.app import create_app

__all__ = ["create_app"]
