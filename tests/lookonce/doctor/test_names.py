"""What the doctor says of workers' names."""

from collections.abc import Sequence

from lookonce.doctor.examination import Targets, examine
from lookonce.doctor.findings import Level
from lookonce.doctor.names import resolve_half


async def resolve(host: str, _: int) -> Sequence[str]:
    """A resolver that knows one name."""
    if host != "v.test":
        raise OSError("no such host")
    return ["10.0.0.1", "10.0.0.2"]


def test_a_name_stands_for_all_its_workers() -> None:
    """Every address of a name is examined, as if it had been listed, and told."""
    half = resolve_half("vision", ("a:1", "dns:v.test:7"), resolve)
    assert half.addresses == {"a:1": None, "10.0.0.1:7": "v.test", "10.0.0.2:7": "v.test"}
    [finding] = half.findings
    assert (finding.level, finding.subject) == (Level.OK, "vision dns:v.test:7")
    assert "2 workers: 10.0.0.1:7, 10.0.0.2:7" in finding.message


def test_a_name_without_address_fails() -> None:
    """A name that has no address is a finding of its own, with what to do."""
    half = resolve_half("vision", ("dns:other.test:7",), resolve)
    [finding] = half.findings
    assert (finding.level, finding.message) == (Level.FAIL, "the name has no address")
    assert "other.test" in finding.remedy
    assert half.addresses == {}


def test_addresses_of_names_are_asked() -> None:
    """The examination resolves by the system and asks who is there: nobody, at this port of the loopback."""
    findings = examine(Targets(vision=("dns:localhost:1",)))
    told = {finding.subject: finding.level for finding in findings}
    assert told["vision dns:localhost:1"] is Level.OK
    assert told["vision 127.0.0.1:1"] is Level.FAIL
