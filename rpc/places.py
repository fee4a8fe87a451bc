"""A bounded number of places, shared so that no tenant can keep the others out. Pure."""

from collections import Counter


class Places:
    """Places that tenants take and give back.

    Whoever comes first gets what is free. A tenant that holds less than its equal share, `most` over the tenants that
    are there, gets up to that also where nothing is free: at worst `most` · (1 + 1/2 + 1/3 + …) are taken, a term for
    each tenant.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()

    @property
    def num_taken(self) -> int:
        """Places that are taken now."""
        return self._held.total()

    def has_room(self, tenant: str, count: int = 1) -> bool:
        """Whether a tenant may take so many more."""
        if self.num_taken + count <= self._most:
            return True
        num_tenants = len(self._held.keys() | {tenant})
        return num_tenants > 1 and self._held[tenant] + count <= self._most // num_tenants

    def take(self, tenant: str, count: int = 1) -> None:
        """Takes so many, `has_room` or not."""
        # Who takes none is not there, and makes nobody's share smaller.
        if count:
            self._held[tenant] += count

    def give_back(self, tenant: str, count: int = 1) -> None:
        """Gives so many back."""
        self._held[tenant] -= count
        if self._held[tenant] <= 0:
            del self._held[tenant]
