"""Chapter: which of two pictures is real? The visitor plays twenty rounds against the models."""

import math
import random
from dataclasses import dataclass, field

import streamlit as st

from colorizer.app.widgets import pictures, state
from colorizer.data.datasets import CLASS_NAMES
from colorizer.models import evaluation, library
from colorizer.models.scale import DEFAULT_VIVIDNESS

_ROUNDS = 20
_MODELS = ("dense-chroma", "unet", "unet-vivid", "colorist")  # Sharp ones, which luminance alone does not give away.
_Z = 1.96  # This many standard deviations of a normal distribution hold 95 %.


@dataclass
class Game:
    """What a visitor has played.

    Attributes:
        rounds: for each round, the number of the sample, the model, and whether the real picture is A.
        answers: for each round that was played, whether the visitor found the real picture.
    """

    rounds: list[tuple[int, str, bool]]
    answers: list[bool] = field(default_factory=list)

    def answer(self, first: bool) -> None:
        """Take the visitor's choice in the current round."""
        if len(self.answers) < len(self.rounds):
            self.answers.append(first == self.rounds[len(self.answers)][2])

    def score(self) -> dict[str, tuple[int, int]]:
        """Return for each model in how many rounds the visitor was right, and of how many."""
        scores: dict[str, tuple[int, int]] = {}
        for (_, model, _), right in zip(self.rounds, self.answers, strict=False):
            found, of = scores.get(model, (0, 0))
            scores[model] = found + right, of + 1
        return scores


def draw_game(models: list[str], num_images: int, seed: int | None = None) -> Game:
    """Draw twenty rounds, in which no image comes twice and each model has nearly the same number of rounds."""
    generator = random.Random(seed)
    images = generator.sample(range(num_images), _ROUNDS)
    drawn = [models[place % len(models)] for place in range(_ROUNDS)]
    generator.shuffle(drawn)
    return Game([(image, model, generator.random() < 0.5) for image, model in zip(images, drawn, strict=True)])


def wilson_interval(right: int, of: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share, right / of (Wilson 1927)."""
    share, extra = right / of, _Z**2 / of
    centre = (share + extra / 2) / (1 + extra)
    half = _Z * math.sqrt(share * (1 - share) / of + extra / (4 * of)) / (1 + extra)
    return centre - half, centre + half


def show() -> None:
    """Show the two pictures of this round, or the score."""
    stored = {}
    for name in _MODELS:
        entry = next((entry for entry in library.list_models() if entry.name == name and not entry.damage), None)
        found = evaluation.stored_predictions(entry, "samples", "test") if entry else None
        if found:
            stored[name] = found.at(DEFAULT_VIVIDNESS).images
    if not stored:
        st.caption(
            "The shipped models are missing, so there is nothing to tell apart. Restore the folder assets/models."
        )
        return
    samples = state.load_samples()
    if "game" not in st.session_state:
        st.session_state.game = draw_game(list(stored), len(samples.images))
    game = st.session_state.game
    played = len(game.answers)
    if played:
        image, model, _ = game.rounds[played - 1]
        verdict, name = "Right." if game.answers[-1] else "Wrong.", CLASS_NAMES[samples.labels[image]]
        st.markdown(f"{verdict} The other picture of the {name} was coloured by **{model}**.")
    if played == len(game.rounds):
        _show_score(game)
        return
    image, model, first = game.rounds[played]
    real, colored = samples.images[image], stored[model][image]
    st.progress(played / _ROUNDS, text=f"Round {played + 1} of {_ROUNDS}")
    shown = ("A", real if first else colored, True), ("B", colored if first else real, False)
    with st.container(horizontal=True):
        for label, picture, is_first in shown:
            with st.container(width=260):
                pictures.show_tiles([[picture]], 8, f"Picture {label} of this round")
                words, key = f"{label} is real", f"game-{label}"
                st.button(words, key=key, on_click=game.answer, args=(is_first,), width="stretch")


def _show_score(game: Game) -> None:
    low, high = wilson_interval(sum(game.answers), _ROUNDS)
    st.markdown(
        f"You found the real picture in **{sum(game.answers)} of {_ROUNDS}** rounds. With 95 % confidence, you find it "
        f"in {low:.0%} to {high:.0%} of all rounds."
    )
    lines = ["| model | you were right | 95 % confidence |", "|:--|--:|--:|"]
    for name, (found, of) in game.score().items():
        low, high = wilson_interval(found, of)
        lines.append(f"| {name} | {found} of {of} | {low:.0%} to {high:.0%} |")
    st.markdown("\n".join(lines))
    st.button("Play again", icon=":material/replay:", on_click=st.session_state.pop, args=("game",))
