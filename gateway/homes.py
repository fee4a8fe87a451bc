"""Which language workers have each image's prefix. Pure: no sockets, no clock."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from gateway.routing import least_loaded, rendezvous

# Images whose workers are remembered, about 300 bytes each; of the others nobody may still have the prefix.
MOST_IMAGES = 1 << 14
# Workers of an image that are remembered: those that were sent it last.
MOST_HOMES = 4


class Homes:
    """The workers that have an image's prefix, as far as this gateway has sent it there.

    A request goes to one of them, unless they have so much more to do than another that it computes the prefix sooner;
    then that one is a home too.
    """

    def __init__(self, most_images: int = MOST_IMAGES) -> None:
        self._most_images = most_images
        self._homes: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def order(
        self,
        image_id: str,
        addresses: Sequence[str],
        running: Mapping[str, int],
        weights: Mapping[str, float] | None = None,
    ) -> tuple[str, ...]:
        """The workers for a request about an image, the best first; the rest is as for `least_loaded`.

        Of equal ones the first is the same for every gateway.
        """
        own = rendezvous(image_id.encode(), addresses)
        return least_loaded(own, running, weights, self._homes.get(image_id, ()))

    def settle(self, image_id: str, address: str) -> None:
        """A request goes to this worker, which has the image's prefix from now on."""
        others = (home for home in self._homes.pop(image_id, ()) if home != address)
        self._homes[image_id] = (address, *others)[:MOST_HOMES]
        if len(self._homes) > self._most_images:
            self._homes.popitem(last=False)

    def forget(self, image_id: str) -> None:
        """The image is deleted."""
        self._homes.pop(image_id, None)
