"""Our worker, held to one of the ways in which its loop may be run."""

from math import inf

from fullhouse.worker import Worker
from fullhouse.worker.turns import Way


class _Fixed:
    look_at = inf

    def __init__(self, way):
        self.way = way


class _Held(Worker):
    way = Way.MAIN

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self._choice = _Fixed(self.way)


class Main(_Held):
    pass


class PassedOn(_Held):
    way = Way.PASSED_ON


class Kept(_Held):
    """The main thread still takes the loop back from a request that holds it up."""

    way = Way.KEPT
