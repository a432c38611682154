"""Every combination of video clips, with music and a spoken voice-over, spliced instead of rendered."""

__version__ = "0.1.0"
