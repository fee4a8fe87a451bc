"""The model of a fleet, held against what can be computed by hand and against queueing theory."""

from statistics import mean

import pytest

from planning.costs import Curve
from planning.fleet import Deaths, Fleet, simulate
from planning.traffic import Request, Traffic, arrivals
from tests.planning.test_costs import costs

ONE = Traffic(rate=1.0, questions=1, image_tokens=100, question_tokens=10, answer_tokens=5)


def test_a_lone_request_takes_the_sum_of_its_parts() -> None:
    """Encoding, prefix, question, and a step for each further token."""
    report = simulate(costs(request_s=0.2), ONE, Fleet(1, 1), [Request(0.0, 0, 1)])
    [served] = report.served
    assert served.first_token_s == pytest.approx(0.2 + 1.0 + 0.5 + 0.1)
    assert served.answered_s == pytest.approx(served.first_token_s + 4 * 0.01)


def test_questions_of_one_image_share_all_but_their_steps() -> None:
    """Ten askers at once: one encoding, one prefix; whoever comes later finds both."""
    requests = [Request(0.0, 7, 1)] * 10 + [Request(5.0, 7, 1)]
    report = simulate(costs(), ONE, Fleet(1, 1), requests)
    assert report.counts.encodings == 1
    assert report.served[-1].first_token_s == pytest.approx(0.1)
    assert report.prefix_hits == pytest.approx(10 / 11)


def test_what_does_not_fit_is_made_again() -> None:
    """With room for one entry and one prefix, two images in turn are always new; with room for two, twice only."""
    requests = [Request(10.0 * number, number % 2, 1) for number in range(8)]
    one, two = 1000 * 100, 2 * 1000 * 100
    assert simulate(costs(), ONE, Fleet(1, 1, one, one), requests).counts.encodings == 8
    assert simulate(costs(), ONE, Fleet(1, 1, two, two), requests).counts.encodings == 2


def test_a_tower_is_an_m_d_1_queue() -> None:
    """New images at random moments wait for the tower as Pollaczek and Khinchine's formula says."""
    use = 0.7
    traffic = Traffic(rate=use, questions=1, image_tokens=100, answer_tokens=1, question_tokens=1)
    tiny = Curve(((100, 1e-9),))
    report = simulate(costs(prefill=tiny, prompt=tiny), traffic, Fleet(1, 4), list(arrivals(traffic, 40_000.0, seed=1)))
    waited = mean(each.first_token_s for each in report.served) - 1.0
    assert waited == pytest.approx(use / (2 * (1 - use)), rel=0.1)
    assert report.vision_use == pytest.approx(use, rel=0.05)


def test_nothing_is_lost_when_workers_die() -> None:
    """A tenth of twenty workers die under load: every request is answered, some later."""
    traffic = Traffic(rate=20.0, questions=1, image_tokens=100, answer_tokens=5, question_tokens=10)
    requests = list(arrivals(traffic, 30.0))
    calm = simulate(costs(), traffic, Fleet(40, 40), requests)
    hurt = simulate(costs(), traffic, Fleet(40, 40), requests, Deaths(10.0, 0.1))
    assert len(calm.served) == len(hurt.served) == len(requests)
    assert hurt.first_token_s(99) > calm.first_token_s(99)
    # Who is dead is not idle: four of forty did nothing after the tenth second.
    lived_s = 40 * hurt.seconds - 4 * (hurt.seconds - 10.0)
    assert hurt.vision_use == pytest.approx(hurt.counts.busy_vision_s / lived_s)
    assert hurt.language_use == pytest.approx(hurt.counts.busy_language_s / lived_s)


def test_shared_cores_are_slower_than_own_ones() -> None:
    """On one host encoding and answering take turns."""
    requests = [Request(0.0, image, 1) for image in range(6)]
    shared = simulate(costs(shares_cores=True), ONE, Fleet(1, 1), requests)
    apart = simulate(costs(), ONE, Fleet(1, 1), requests)
    assert shared.seconds == pytest.approx(6 * (1.0 + 0.5 + 0.1 + 4 * 0.01), rel=0.1)
    assert apart.seconds < shared.seconds


def test_images_come_by_zipfs_law() -> None:
    """The first is asked about twice as often as the second; the same seed gives the same requests."""
    traffic = Traffic(rate=100.0, num_images=50, zipf=1.0)
    requests = list(arrivals(traffic, 100.0, seed=3))
    counts = [sum(request.image == image for request in requests) for image in (0, 1)]
    assert len(requests) == pytest.approx(10_000, rel=0.05)
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.15)
    assert requests == list(arrivals(traffic, 100.0, seed=3))
