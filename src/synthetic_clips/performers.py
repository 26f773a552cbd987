"""Who acts in the synthetic clips of NTU RGB+D: performers with bodies, clothes and habits, drawn from one seed."""

from dataclasses import dataclass

import numpy as np

from synthetic_clips.costume import Costume
from synthetic_clips.figure import Build
from synthetic_clips.render import linear

TRAINING = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16)  # performers whom NTU's split by subject trains on
TESTED = (3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26)  # and whom it tests on
SOURCE = (17, 18, 19, 25, 27, 28, 31, 34)  # performers of the everyday actions
PERFORMERS = tuple(sorted(TRAINING + TESTED + SOURCE))
# Room of each performer; each room of a tested performer has training performers too.
SETUPS = {number: 1 + place % 6 for place, number in enumerate(TRAINING)}
SETUPS |= {number: 1 + (place + 1) % 6 for place, number in enumerate(TESTED)}
SETUPS |= {number: 1 + (place + 3) % 6 for place, number in enumerate(SOURCE)}

SKINS = [(240, 200, 174), (228, 182, 150), (214, 164, 128), (190, 134, 98), (156, 104, 74), (116, 76, 56)]
HAIRS = [(30, 24, 22), (58, 38, 26), (104, 70, 40), (168, 128, 76), (120, 118, 116), (24, 22, 30)]
SHIRTS = [(196, 52, 48), (48, 92, 176), (46, 132, 84), (214, 170, 50), (120, 66, 140), (52, 56, 66),
          (222, 222, 224), (52, 150, 164), (206, 104, 48), (150, 44, 84)]  # fmt: skip
TROUSERS = [(46, 54, 80), (36, 36, 40), (120, 104, 80), (84, 88, 92), (70, 84, 110), (96, 62, 50)]


@dataclass(frozen=True)
class Performer:
    """Who acts: body, clothes and habits that stay the same in all of a performer's clips."""

    number: int
    build: Build
    costume: Costume
    left_handed: bool
    tempo: float
    size: float  # of movements, 1 the usual
    facing: float  # degrees to the left of straight ahead
    stance: float  # feet apart, cm
    hanging: np.ndarray  # (2, 3), how the arms hang
    stoop: np.ndarray  # degrees of spine, chest and head at rest


def check_choice(name, value, allowed):
    """Raise ValueError unless `value` is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(str, allowed))}, found {value}")


def performer_of(number: int, seed: int = 0) -> Performer:
    """Draw performer `number`, one of PERFORMERS. Raises ValueError for others."""
    check_choice("performer", number, PERFORMERS)
    place = PERFORMERS.index(number)
    random = np.random.default_rng([seed, 11, number])
    orders = np.random.default_rng([seed, 12])
    skins, hairs, shirts, pants = (
        np.concatenate([orders.permutation(len(tones)) for _ in range(5)])[place]
        for tones in (SKINS, HAIRS, SHIRTS, TROUSERS)
    )
    left_handed = np.concatenate([orders.permutation(4) for _ in range(8)])[place] == 0
    shirt = linear(*SHIRTS[shirts]) * random.uniform(0.9, 1.1, 3)
    costume = Costume(
        skin=linear(*SKINS[skins]) * random.uniform(0.95, 1.05, 3),
        hair=linear(*HAIRS[hairs]),
        shirt=shirt,
        # Sleeves of another shade, so that an arm before the body can be made out.
        sleeve=shirt * random.choice([0.62, 0.72]) if shirt.mean() > 0.08 else shirt * 1.9 + 0.02,
        trousers=linear(*TROUSERS[pants]) * random.uniform(0.85, 1.15, 3),
        shoes=linear(*random.choice([(30, 28, 28), (224, 222, 218), (110, 66, 40)])),
        long_sleeves=random.random() < 0.55,
        bare_shins=random.random() < 0.25,
        hair_length=int(random.choice([0, 1, 2], p=[0.35, 0.35, 0.3])),
    )
    build = Build(random.uniform(158, 184), random.uniform(0.93, 1.07), random.uniform(0.96, 1.04),
                  random.uniform(0.98, 1.02), random.uniform(0.9, 1.13))  # fmt: skip
    return Performer(
        number, build, costume, bool(left_handed),
        tempo=random.uniform(0.88, 1.15),
        size=random.uniform(0.85, 1.2),
        facing=random.uniform(-35, 35),
        stance=random.uniform(0, 5),
        hanging=random.normal(0, [1.5, 2.5, 0.5], (2, 3)),
        stoop=random.normal(0, [2, 2, 3]),
    )  # fmt: skip
