"""Networks on the Hugging Face hub: weights, settings and a page about them."""

from cifarzoo.hub.repository import (
    TIMM_PREFIX,
    fetch_weights,
    from_pretrained,
    push_to_hub,
    save_pretrained,
    weights_in_folder,
)

__all__ = [
    "TIMM_PREFIX",
    "fetch_weights",
    "from_pretrained",
    "push_to_hub",
    "save_pretrained",
    "weights_in_folder",
]
