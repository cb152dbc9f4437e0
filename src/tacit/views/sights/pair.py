"""How pictures with captions are shown where no method has a say: as pictures."""

from __future__ import annotations

from tacit.views.sights.image import coarse, crops, flat, light, looks, still, told, tuning, varied, window

__all__ = ["coarse", "crops", "flat", "light", "looks", "still", "told", "tuning", "varied", "window"]
