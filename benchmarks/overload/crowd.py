"""Clients that come at once and ask in turn, on the generator of `fullhouse tune`."""

import asyncio
import time

from fullhouse.tune.load import Answers, Generator, Stream

PATIENCE_S = 300.0


async def _ask_in_turn(port: int, path: str, requests: int, answers: Answers, start: float) -> None:
    generator = Generator(port, Stream(path, 0.0), PATIENCE_S)
    for _ in range(requests):
        await generator.ask(answers, start, time.monotonic() - start)
    generator.close()


def crowd(port: int, path: str, clients: int, requests: int) -> Answers:
    """So many clients that come at once, each with so many requests, one after the other; whatever the answers are."""

    async def all_of_them() -> Answers:
        answers, start = Answers(0.0), time.monotonic()
        await asyncio.gather(*(_ask_in_turn(port, path, requests, answers, start) for _ in range(clients)))
        answers.seconds = time.monotonic() - start
        return answers

    return asyncio.run(all_of_them())
