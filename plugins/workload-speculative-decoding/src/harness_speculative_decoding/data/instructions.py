"""Short instructions about everyday things, for models that chat: what `builtin:smollm2-draft` learns to answer.

The things of `suites/sss-instruct-prompts.jsonl` are not among those that are learnt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Final

Message = dict[str, str]
"""A turn of a conversation: `role` and `content`."""

TEMPLATES: Final = ("What is {}? Answer in one short sentence.", "Describe {} in one sentence.")

_LEARNT: Final = """
anchor apple apron arrow bakery balloon bank basket beach bell bench bird blanket boat book bottle bowl box bridge
broom brush bucket bus button cabin cake calendar camera camp candle car carpet castle cave ceiling chair chapel
cheese circle city clock cloud coat coin compass cookie corner couch cow crown cup curtain desert desk diary dish
dog doll door dragon dress drum duck eagle egg elephant engine envelope factory farm feather fence field fire fish
flag flower fork fountain fox frog garage gate giraffe glove goat grape guitar hammer harbor hat hen hill horse hotel
house island jacket jar jewel kettle key kitchen kite knife lake lamp leaf lemon letter lion market mask meadow
mirror monkey mouse museum nail nest newspaper notebook onion orchard oven owl painting paper park pear pen pencil
piano picture pillow pizza planet plate pocket pond potato pumpkin puzzle rabbit radio ring river road robot roof
rope rose sail salad sandwich school ship shirt shoe shop sister
"""
_HELD_OUT: Final = """
ocean spoon square stable star station stone street table telescope tiger tower tractor train tree village
"""


def _things(words: str) -> tuple[str, ...]:
    return tuple(f"{'an' if word[0] in 'aeio' else 'a'} {word}" for word in words.split())


LEARNT: Final = _things(_LEARNT)
"""Things whose answers are learnt."""
HELD_OUT: Final = _things(_HELD_OUT)
"""Things that no training sees."""


def conversations(things: tuple[str, ...]) -> Iterator[list[Message]]:
    """One turn of a user for each template and thing."""
    for template in TEMPLATES:
        for thing in things:
            yield [{"role": "user", "content": template.format(thing)}]


def digest() -> str:
    """sha256 of all conversations."""
    everything = [*conversations(LEARNT), *conversations(HELD_OUT)]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()
