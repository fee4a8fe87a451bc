"""Who a request belongs to. The one place that turns a bearer token into a tenant."""

from gateway.errors import Unauthorized
from rpc.tokens import ANY_TENANT, BEARER, WatchedTokens

PUBLIC = "public"


class Tenants:
    """The tenants of the tokens in a file; without a file nobody needs a token, and everybody is `public`.

    Raises:
        ValueError: a line of the file is no good.
        OSError: the file cannot be read.
    """

    def __init__(self, tokens_file: str | None) -> None:
        self._tokens = None if tokens_file is None else WatchedTokens(tokens_file)

    def of(self, authorization: str | None) -> str:
        """The tenant of an `Authorization` header.

        Raises:
            Unauthorized: tokens are asked for, and this is not one of them.
        """
        if self._tokens is None:
            return PUBLIC
        if authorization is None or not authorization.lower().startswith(BEARER):
            raise Unauthorized("a token is needed: send it as 'Authorization: Bearer TOKEN'", code="missing_api_key")
        tenant = self._tokens.tenant(authorization)
        # A request over HTTP names no tenant, so that a token for all of them says nothing.
        if tenant is None or tenant == ANY_TENANT:
            raise Unauthorized("the token is not known here")
        return tenant
