"""Result generators: what each engine answers, shaped as C-K and fixed by seed and task number."""

from app.emulator.answers.compose import Answers, clusters_returned

__all__ = ["Answers", "clusters_returned"]
