"""Numbers as people read them. Pure."""

THOUSAND = 1000


def bytes_text(num_bytes: float) -> str:
    """5.1 MB, 940 B: decimal units, as disks and networks are sold."""
    return _scaled(num_bytes, ("B", "kB", "MB", "GB", "TB"))


def count_text(count: float) -> str:
    """7.6 B, 854 k, 12."""
    return _scaled(count, ("", "k", "M", "B", "T")).rstrip()


def seconds_text(seconds: float) -> str:
    """12 ms, 3.4 s, 75 s."""
    if seconds < 1:
        return f"{seconds * THOUSAND:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds:.0f} s"


def percent_text(part: float, whole: float) -> str:
    """81 %; 0 % of nothing."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def counted(count: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _scaled(amount: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if amount < THOUSAND:
            return f"{amount:.0f} {unit}" if unit == units[0] or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= THOUSAND
    return f"{amount:.1f} {units[-1]}"
