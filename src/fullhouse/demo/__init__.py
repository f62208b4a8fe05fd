"""A real Django site to show, test and measure with: a box office that must never sell a seat twice."""

from fullhouse.demo.opening import Show, prepare

__all__ = ["Show", "prepare"]
