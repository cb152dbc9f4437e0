"""The views through which every method of a kind is judged, whatever its own views are."""

from __future__ import annotations

from tacit.data.spec import Spec
from tacit.views.image import ImageView, Jitter
from tacit.views.view import View


def probe_view(spec: Spec, size: int) -> View:
    """A moderate crop and change of light: two of them are plainly the same sample to a person, and not to pixels."""
    return ImageView(size, area=(0.3, 1.0), flip=0.0, jitter=Jitter(0.4, 0.4, 0.0, 0.0, probability=1.0))


def light_view(spec: Spec, size: int) -> View:
    """Nearly all of the sample in another light and other colours, or none: the same layout, which crops and textures lose."""
    return ImageView(size, area=(0.9, 1.0), flip=0.0, jitter=Jitter(0.8, 0.8, 0.8, 0.2, probability=1.0), grey=0.5)
