"""What can go wrong between a hub and this host.

HubError                 str() is one line for whoever started the process
├── NotOnHub             no such model, revision or file; or it is private and no token that may see it was given
├── AccessRefused        the model is gated, or the token is not good
├── Unservable           the repository has no weights that are served: pickle only, or none
├── NotOnThisHost        offline, and what is needed has not been downloaded before
├── HubUnreachable       no answer, or one that says to come back later, again and again
└── DownloadBroken       what came is not what was promised: a size, a checksum, a range; or it cannot be written
"""


class HubError(Exception):
    """Root of everything this package raises."""


class NotOnHub(HubError):
    """No such model, revision or file, as far as this token can see."""


class AccessRefused(HubError):
    """The model is gated, or the token is not good."""


class Unservable(HubError):
    """The repository has no safetensors."""


class NotOnThisHost(HubError):
    """The hub may not be asked, and what is needed is not here."""


class HubUnreachable(HubError):
    """The hub does not answer."""


class DownloadBroken(HubError):
    """What came is not what was promised, or cannot be written."""
