"""Moderation over a deployment of the demo: OpenAI's client, the whole model, labelled scenes, the command line."""

import base64
import io
import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo.evaluate import scene_seeds
from demo.labelled import EXAMPLES, TRUTHS, write
from demo.scenes import draw, make_scene
from gateway.policies.nodes import PolicyFileError
from gateway.policies.reading import policies_of, read_policies
from lookonce.calibration.examples import read_examples
from lookonce.models import DEMO_DIR
from tests.deployment import Deployment, deploy, environment, wait_until
from tests.families.oracle import choice_logprobs
from tests.lookonce.serving import lookonce

SHIPPED = Path(DEMO_DIR).parent / "policies.yaml"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "moderation.md"
TEXT_POLICY = """
  - name: circle-in-words
    question: Is there a red circle?
    flagged: [no]
"""
SCENES = 40


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped policies, and one that is asked about texts too."""
    path = tmp_path_factory.mktemp("policies") / "policies.yaml"
    path.write_text(SHIPPED.read_text() + TEXT_POLICY)
    return path


@pytest.fixture(scope="module")
def demo(policies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The demo, served with policies."""
    root = tmp_path_factory.mktemp("moderation")
    with deploy(DEMO_DIR, "memory://", root, gateway=["--policies", str(policies)]) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of labelled scenes."""
    return write(tmp_path_factory.mktemp("scenes"), seed=3, images=SCENES).parent


def data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def whole_model(question: str, labels: tuple[str, ...], pictures: list[Image.Image]) -> dict[str, float]:
    """Each label's probability as transformers' whole model has it."""
    logprobs = choice_logprobs(Path(DEMO_DIR), question, labels, pictures)
    total = sum(map(math.exp, logprobs))
    return {label: math.exp(logprob) / total for label, logprob in zip(labels, logprobs, strict=True)}


def test_scores_are_the_whole_models(demo: Deployment, policies: Path) -> None:
    """Through OpenAI's client every label has the whole model's probability, and scores follow from these."""
    found = read_policies(policies)
    picture = draw(make_scene(11))
    url: openai.types.ModerationMultiModalInputParam = {"type": "image_url", "image_url": {"url": data_url(picture)}}
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="none") as client:
        seen = client.moderations.create(input=[url]).results[0].to_dict()
        read = client.moderations.create(input="a red circle").results[0].to_dict()
    for result, pictures, texts in ((seen, [picture], ()), (read, [], ("a red circle",))):
        told = result["lookonce"]["policies"]  # type: ignore[index, call-overload]
        asked = [policy for policy in found.policies if ("image" if pictures else "text") in policy.inputs]
        assert list(told) == [policy.name for policy in asked]
        for policy in asked:
            expected = whole_model(policy.prompt(texts), policy.labels, pictures)
            raw = sum(expected[label] for label in policy.flagged)
            log_odds = math.log(raw) - math.log(sum(expected[label] for label in set(expected) - set(policy.flagged)))
            assert told[policy.name]["labels"] == pytest.approx(expected, abs=1e-4)
            assert told[policy.name]["raw_score"] == pytest.approx(raw, abs=1e-4)
            score = result["category_scores"][policy.name]  # type: ignore[index, call-overload]
            assert score == pytest.approx(policy.calibration.apply(log_odds), abs=1e-3)
            assert result["categories"][policy.name] == (score >= policy.threshold)  # type: ignore[index, call-overload]


def test_an_images_prefix_is_computed_once_for_all_policies(demo: Deployment) -> None:
    """Of six policies about a new picture five reuse all tokens up to their question."""
    body = {"input": [{"type": "image_url", "image_url": {"url": data_url(draw(make_scene(12)))}}]}
    told = demo.http.post("/v1/moderations", json=body).json()["results"][0]["lookonce"]
    assert told["image_cache"] == ["miss"]
    assert len(told["policies"]) == 6
    # A scene has 36 image tokens, and the template's beginning comes before them.
    assert told["prefix_tokens_reused"] >= 5 * 36


def test_the_shipped_policies_are_right_about_scenes(demo: Deployment) -> None:
    """Over scenes that nothing was fitted to, every shipped policy is right about at least 95 of 100."""
    right = dict.fromkeys(TRUTHS, 0)
    numbers = scene_seeds(4, SCENES)
    for number in numbers:
        scene = make_scene(number)
        body = {"input": [{"type": "image_url", "image_url": {"url": data_url(draw(scene))}}]}
        categories = demo.http.post("/v1/moderations", json=body).json()["results"][0]["categories"]
        for name, is_so in TRUTHS.items():
            right[name] += categories[name] == is_so(scene)
    assert {policy.name for policy in read_policies(SHIPPED).policies} == set(TRUTHS)
    assert min(right.values()) >= 0.95 * len(numbers), right


def test_calibrating_mends_a_badly_spread_policy(demo: Deployment, scenes: Path, tmp_path: Path) -> None:
    """Raw, a question that is not as in the training misses a third; after `calibrate` it misses next to none."""
    raw, fitted, plot = tmp_path / "raw.yaml", tmp_path / "fitted.yaml", tmp_path / "curves.png"
    raw.write_text(
        "# mine\npolicies:\n- name: anything-purple\n  question: Are there purple things?\n  inputs: [image]\n"
    )
    examples = tmp_path / EXAMPLES
    lines = (scenes / EXAMPLES).read_text().splitlines()
    records = [json.loads(line) for line in lines if "anything-purple" in line]
    examples.write_text("".join(json.dumps({**r, "image": str(scenes / r["image"])}) + "\n" for r in records))
    common = ["calibrate", "--examples", str(examples), "--server", demo.url]
    before = lookonce(*common, "--policies", str(raw), "--check")
    assert (before.returncode, before.stderr) == (0, "")
    done = lookonce(*common, "--policies", str(raw), "-o", str(fitted), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    assert f"Policies: {fitted}" in done.stdout
    (policy,) = policies_of(fitted.read_text()).policies
    assert fitted.read_text().startswith("# mine\n")
    assert policy.calibration.bias > 1
    row = next(line for line in done.stdout.splitlines() if line.startswith(" anything-purple")).split()
    ece_before, ece_after, f1 = float(row[3]), float(row[4]), float(row[-1])
    assert ece_after < ece_before / 2
    assert f1 >= 0.95
    assert Image.open(plot).size[0] > 500


def moderate_command(demo: Deployment, source: Path, output: Path, *more: str) -> list[str]:
    """The command line of a bulk run."""
    return ["moderate", str(source), "-o", str(output), "--server", demo.url, *more]


def test_a_killed_run_goes_on_where_it_was(demo: Deployment, policies: Path, scenes: Path, tmp_path: Path) -> None:
    """Killed in the middle and started again, the rows are those of a run that was left alone; a bad image is a row."""
    (scenes / "scene-broken.png").write_bytes(b"no picture")
    killed, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    journal = tmp_path / "killed.jsonl.journal"
    command = moderate_command(demo, scenes, killed, "--policies", str(policies), "--parallel", "1")
    running = subprocess.Popen([sys.executable, "-m", "lookonce", *command], env=environment())
    try:
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") > 5, "some rows in the journal")
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert not killed.exists()
    resumed = lookonce(*command)
    assert "done before" in resumed.stderr
    assert "Flagged: " in resumed.stderr
    assert lookonce(*moderate_command(demo, scenes, whole, "--policies", str(policies))).returncode == 1
    assert resumed.returncode == 1
    assert sorted(killed.read_text().splitlines()) == sorted(whole.read_text().splitlines())
    rows = [json.loads(line) for line in killed.read_text().splitlines()]
    assert len(rows) == SCENES + 1
    (broken,) = (row for row in rows if row["error"])
    assert (broken["image"], broken["flagged"]) == (str(scenes / "scene-broken.png"), None)


def test_the_servers_policies_make_the_same_rows(
    demo: Deployment, policies: Path, scenes: Path, tmp_path: Path
) -> None:
    """Without --policies the server's own are asked; rows and summary equal those of the file, as Parquet too."""
    pictures = sorted(scenes.glob("scene-3*.png"))[:4]
    outputs = tmp_path / "file.parquet", tmp_path / "server.parquet"
    words = ["moderate", *map(str, pictures), "--server", demo.url]
    by_file = lookonce(*words, "-o", str(outputs[0]), "--policies", str(policies))
    by_server = lookonce(*words, "-o", str(outputs[1]))
    assert (by_file.returncode, by_server.returncode) == (0, 0), by_server.stderr
    tables = [pq.read_table(path) for path in outputs]
    assert tables[0].equals(tables[1])
    rows = tables[0].to_pylist()
    assert [row["image"] for row in rows] == list(map(str, pictures))
    flagged = sum(row["flagged"] for row in rows)
    assert f"Flagged: {flagged} of 4 images" in by_server.stderr
    assert set(dict(rows[0]["scores"])) == {policy.name for policy in read_policies(policies).policies}


def blocks(kind: str) -> list[str]:
    """The blocks of one kind in the documentation; "" is the commands'."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCS.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == kind]


def test_the_documented_file_and_fault_are_so() -> None:
    """The documented policies are read as the comments say, and the documented error is what a gateway says."""
    (text,) = blocks("yaml")
    guns, insults = policies_of(text).policies
    assert (guns.flagged, guns.threshold, guns.inputs) == (("yes", "unclear"), 0.35, ("image",))
    assert (insults.labels, insults.flagged, insults.threshold) == (("yes", "no"), ("yes",), 0.5)
    with pytest.raises(PolicyFileError) as caught:
        policies_of(text.replace("0.35", "3.5"))
    assert blocks("text") == [f"cannot start: {caught.value}\n"]


def test_the_documented_client_runs(demo: Deployment, tmp_path: Path) -> None:
    """The documented program prints the verdict and every policy's score."""
    scene = next(number for number in range(100) if TRUTHS["red-circle"](make_scene(number)))
    draw(make_scene(scene)).save(tmp_path / "scene.png")
    (program,) = blocks("python")
    (tmp_path / "program.py").write_text(program)
    said = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "scene.png")],
        capture_output=True,
        text=True,
        check=True,
        env=environment(LOOKONCE_SERVER=demo.url),
    ).stdout.splitlines()
    assert said[0] == "flagged"
    assert float(said[1].removeprefix("red-circle ")) > 0.9


def test_the_documented_commands_and_labels_exist(tmp_path: Path) -> None:
    """Every flag of a documented command is known, and the documented examples are read."""
    commands = [line.split() for block in blocks("") for line in block.splitlines()]
    assert {words[1] for words in commands} == {"serve", "calibrate", "moderate"}
    for name in ("serve", "calibrate", "moderate"):
        known = lookonce(name, "--help", COLUMNS="200").stdout
        flags = {word for words in commands if words[1] == name for word in words if word.startswith("-")}
        assert all(re.search(rf"(?<!\S){flag}\b", known) for flag in flags), flags
    (tmp_path / "labelled.jsonl").write_text(blocks("json")[0])
    found = read_examples(tmp_path / "labelled.jsonl", policies_of(blocks("yaml")[0]))
    assert [example.flagged for example in found] == [False, True, True]
