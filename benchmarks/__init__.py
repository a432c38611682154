"""Crosscut against MoviePy, the ffmpeg command line and cp, in one run on the same inputs.

`python -m benchmarks` measures and writes docs/benchmarks.md; `--quick` only shows that everything runs.
"""
