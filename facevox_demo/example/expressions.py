"""The five expressions as movements of the face ("actions"), and their smooth displacement fields.

An action moves a few landmarks; around each the skin follows like a bell. The expressions are caricatures for
testing: an expression in a picture is not a feeling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from facevox.errors import UserError
from facevox_demo.example.warps import Floats, bell

EXPRESSIONS = ("happy", "sad", "neutral", "embarrassed", "anxiety")

# Action -> moves (left landmark, right landmark, outwards, downwards, width of the bell) in face units.
# FaceMesh's numbers: corners of the mouth 61 and 291, edges of the lips 0 and 17, cheeks 205 and 425;
# brows from inside 107, 105, 70 and 336, 334, 300; upper lids 159, 386, lower lids 145, 374, irises 468, 473.
ACTIONS: dict[str, tuple[tuple[int, int, float, float, float], ...]] = {
    "smile": ((61, 291, 0.055, -0.055, 0.10), (205, 425, 0.01, -0.04, 0.12)),
    # A smile of one side: a single landmark is named twice, "outwards" is then to the left of the picture.
    "smirk_left": ((61, 61, 0.055, -0.055, 0.11), (205, 205, 0.01, -0.03, 0.12)),
    "smirk_right": ((291, 291, -0.055, -0.055, 0.11), (425, 425, -0.01, -0.03, 0.12)),
    "frown": ((61, 291, 0.00, 0.055, 0.09), (57, 287, 0.0, 0.02, 0.09)),
    "brow_inner_up": ((107, 336, 0.0, -0.065, 0.09), (70, 300, 0.0, 0.02, 0.09)),
    "brow_up": ((107, 336, 0.0, -0.035, 0.09), (105, 334, 0.0, -0.035, 0.09), (70, 300, 0.0, -0.03, 0.09)),
    "brow_in": ((107, 336, -0.035, 0.01, 0.07),),
    "lid_wide": ((159, 386, 0.0, -0.022, 0.055), (145, 374, 0.0, 0.010, 0.05)),
    "lid_droop": ((159, 386, 0.0, 0.026, 0.06),),
    "squint": ((145, 374, 0.0, -0.022, 0.06),),
    "lip_press": ((17, 17, 0.0, -0.032, 0.07), (0, 0, 0.0, 0.020, 0.07), (61, 291, -0.065, 0.0, 0.09)),
    "lip_stretch": ((61, 291, 0.065, 0.015, 0.10),),
    "look_down": ((468, 473, 0.0, 0.026, 0.05), (159, 386, 0.0, 0.024, 0.06)),
}


@dataclass(frozen=True, kw_only=True)
class Expression:
    """Expression of a face: its movements.

    Attributes:
        actions: Strength by action; 1 is the size of `ACTIONS`.
        opening: Of the mouth, 0 to 1.
        spread: Of the mouth, -1 (round) to 1 (spread).
        blush: Share of red in the cheeks, 0 to 1.
        roll_deg: Tilt of the head, clockwise in the picture.
        turn: Turn of the head to the right of the picture, about -1 to 1.
        nod: Downward turn of the head, about -1 to 1.
    """

    actions: Mapping[str, float] = field(default_factory=dict)
    opening: float = 0.0
    spread: float = 0.0
    blush: float = 0.0
    roll_deg: float = 0.0
    turn: float = 0.0
    nod: float = 0.0


_FULL: dict[str, Expression] = {
    "neutral": Expression(),
    "happy": Expression(actions={"smile": 1.4, "squint": 0.8}, opening=0.14, spread=0.5),
    "sad": Expression(actions={"frown": 1.3, "brow_inner_up": 1.1, "lid_droop": 1.0}, nod=0.6),
    "embarrassed": Expression(
        actions={"lip_press": 1.1, "smirk_right": 1.0, "look_down": 1.0, "brow_inner_up": 0.3},
        blush=1.0,
        roll_deg=8.0,
        turn=0.7,
        nod=0.7,
    ),
    "anxiety": Expression(
        actions={"brow_up": 1.2, "brow_in": 0.9, "lid_wide": 1.2, "lip_stretch": 1.0}, opening=0.28
    ),
}


def make_expression(name: str, strength: float = 1.0, side: float = 1.0) -> Expression:
    """The expression `name`.

    Args:
        name: One of `EXPRESSIONS`.
        strength: 0 gives the neutral face, 1 the full expression.
        side: 1 or -1: to which side the head is tilted and the mouth is drawn.

    Raises:
        UserError: No such expression.
    """
    if name not in _FULL:
        raise UserError(f"expression {name!r}: unknown; choose one of {', '.join(EXPRESSIONS)}")
    full = _FULL[name]
    swapped = {"smirk_right": "smirk_left"} if side < 0 else {}
    return Expression(
        actions={swapped.get(action, action): strength * share for action, share in full.actions.items()},
        opening=strength * full.opening,
        spread=strength * full.spread,
        blush=strength * full.blush,
        roll_deg=side * strength * full.roll_deg,
        turn=side * strength * full.turn,
        nod=strength * full.nod,
    )


# Frames of glasses would bend with the skin behind them.
BEHIND_GLASSES = ("brow_inner_up", "brow_up", "brow_in")
BEHIND_GLASSES_SHARE = 0.55


def action_fields(points: Floats, landmarks: Floats, has_glasses: bool) -> dict[str, Floats]:
    """Displacement of each point by each action.

    Args:
        points: (..., 2) in face units.
        landmarks: (478, 2) of the person in face units.
        has_glasses: Whether the person wears glasses, which hold the brows back.

    Returns:
        Action -> (..., 2) displacement in face units; also `turn` and `nod`, which shift the middle of the
        face against its outline as a small turn of the head does.
    """
    fields: dict[str, Floats] = {}
    for action, moves in ACTIONS.items():
        total = np.zeros(points.shape)
        for left, right, outwards, downwards, width in moves:
            # A landmark without a partner is named twice and moves once.
            for number, side in ((left, -1.0), (right, 1.0))[: 1 if left == right else 2]:
                near = bell(np.hypot(*np.moveaxis(points - landmarks[number], -1, 0)), width)
                total += near[..., None] * (side * outwards, downwards)
        strength = BEHIND_GLASSES_SHARE if has_glasses and action in BEHIND_GLASSES else 1.0
        fields[action] = strength * total
    middle = bell(np.hypot(points[..., 0], points[..., 1] - 0.35), 0.42)[..., None]
    fields["turn"] = middle * (0.07, 0.0)
    fields["nod"] = middle * (0.0, 0.05)
    return fields
