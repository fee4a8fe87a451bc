"""Which language worker each image's questions go to. Pure: no sockets, no clock."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from gateway.routing import bounded, rendezvous

# Images whose worker is remembered, about 200 bytes each; of the others nobody may still have the prefix.
MOST_IMAGES = 1 << 14


class Homes:
    """The worker that has an image's prefix, as far as this gateway has sent it there.

    An image that is new here goes to the first of its own order that has no more to do than its share: whoever computes
    a prefix may as well be idle. From then on its questions follow it, unless that worker has too much to do.
    """

    def __init__(self, most_images: int = MOST_IMAGES) -> None:
        self._most_images = most_images
        self._homes: OrderedDict[str, str] = OrderedDict()

    def order(
        self,
        image_id: str,
        addresses: Sequence[str],
        running: Mapping[str, int],
        weights: Mapping[str, float] | None = None,
    ) -> tuple[str, ...]:
        """The workers for a request about an image, the best first; `running` and `weights` are as for `bounded`."""
        own = rendezvous(image_id.encode(), addresses)
        home = self._homes.get(image_id)
        if home not in own:
            return bounded(own, running, weights, is_new=True)
        return bounded((home, *(address for address in own if address != home)), running, weights)

    def settle(self, image_id: str, address: str, addresses: Sequence[str]) -> None:
        """A request goes to this worker, which is the image's from now on, unless one of `addresses` already is."""
        home = self._homes.pop(image_id, address)
        self._homes[image_id] = home if home in addresses else address
        if len(self._homes) > self._most_images:
            self._homes.popitem(last=False)

    def forget(self, image_id: str) -> None:
        """The image is deleted."""
        self._homes.pop(image_id, None)
