"""Bulk runs as a person starts them: real processes, killed and interrupted, against a real deployment."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lookonce.errors import INTERRUPTED
from tests.deployment import STOP_S, Deployment, deploy, environment, redis_server, wait_until
from tests.end_to_end.asking import png
from tests.lookonce.bulk.test_dataset import row, save
from tests.lookonce.serving import lookonce

NUM_IMAGES = 60
QUESTIONS = ["-q", "How many objects are in the picture?", "-q", "Do you see a square?"]


def fill(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}.png").write_bytes(png(number))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("photos") / "all", NUM_IMAGES)


@pytest.fixture(scope="module")
def whole(demo: Deployment, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The results of one run that nobody stopped."""
    output = tmp_path_factory.mktemp("whole") / "out.jsonl"
    done = lookonce("ask", str(photos), *QUESTIONS, "-o", str(output), "--server", demo.url)
    assert done.returncode == 0, done.stderr
    assert f"{NUM_IMAGES} images in " in done.stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["image"] for row in rows[::2]] == [str(path) for path in sorted(photos.iterdir())]
    assert all(row["answer"] and row["error"] is None for row in rows)
    return output.read_bytes()


def _journal(output: Path) -> Path:
    return output.with_name(output.name + ".journal")


def journal_lines(output: Path) -> list[bytes]:
    journal = _journal(output)
    return journal.read_bytes().splitlines(keepends=True) if journal.exists() else []


def stopped_in_the_middle(photos: Path, output: Path, server: str, number: signal.Signals) -> tuple[int, str]:
    """Starts a run and ends it by a signal once some images are done: its exit status and standard error.

    On a busy machine all may be done by then, which would show nothing: that run is forgotten, and another begun.
    """
    for _ in range(5):
        status, errors = _stopped(photos, output, server, number)
        if len(journal_lines(output)) <= NUM_IMAGES:
            assert not output.exists()
            return status, errors
        for path in (output, _journal(output)):
            path.unlink(missing_ok=True)
    pytest.fail("each run was at its end before it could be stopped")


def _stopped(photos: Path, output: Path, server: str, number: signal.Signals) -> tuple[int, str]:
    command = [sys.executable, "-m", "lookonce", "ask", str(photos), *QUESTIONS]
    command += ["-o", str(output), "--server", server, "--parallel", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        wait_until(lambda: len(journal_lines(output)) > 5, "the first images to be done")
        process.send_signal(number)
        _, errors = process.communicate(timeout=STOP_S)
    finally:
        process.kill()
    assert len(journal_lines(output)) > 5
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_results(
    demo: Deployment, photos: Path, whole: bytes, tmp_path: Path, number: signal.Signals
) -> None:
    """Killed or interrupted and started again, it asks what is missing alone; the results equal one run's."""
    output = tmp_path / "out.jsonl"
    status, errors = stopped_in_the_middle(photos, output, demo.url, number)
    if number is signal.SIGINT:
        assert status == INTERRUPTED
        assert "the same command goes on from there" in errors
        assert "Traceback" not in errors
    before = [json.loads(line)["key"] for line in journal_lines(output)[1:] if line.endswith(b"\n")]
    done = lookonce("ask", str(photos), *QUESTIONS, "-o", str(output), "--server", demo.url)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} done before" in done.stderr
    assert output.read_bytes() == whole
    keys = [json.loads(line)["key"] for line in journal_lines(output)[1:]]
    assert keys[: len(before)] == before
    assert len(keys) == len(set(keys)) == NUM_IMAGES


def test_one_bad_image_stops_nobody(demo: Deployment, photos: Path, tmp_path: Path) -> None:
    """Its row has the error and the status is 1; mended, the same command asks about it alone."""
    folder = tmp_path / "p"
    folder.mkdir()
    for name in ("000.png", "001.png"):
        shutil.copy(photos / name, folder)
    (folder / "bad.png").write_text("no picture")
    command = ["ask", str(folder), "-q", "What?", "--max-tokens", "2", "-o", str(tmp_path / "out.csv")]
    command += ["--server", demo.url]
    done = lookonce(*command)
    assert done.returncode == 1
    assert "1 failed; the first: " in done.stderr
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert "refused (400)" in rows[2]["error"]
    shutil.copy(photos / "002.png", folder / "bad.png")
    done = lookonce(*command)
    assert done.returncode == 0, done.stderr
    assert "1 image in " in done.stderr
    assert "2 done before" in done.stderr
    assert "refused" not in (tmp_path / "out.csv").read_text()


def test_records_are_asked_their_own_questions(demo: Deployment, photos: Path, tmp_path: Path) -> None:
    """A file of questions and a data set, in one run, into a Parquet file with the choices' probabilities."""
    first = (photos / "000.png").read_bytes()
    data = save(tmp_path / "data", [row(first), row(first, question="Is it red?", choices=["red", "blue"])])
    (tmp_path / "a.png").write_bytes(first)
    record = {"id": "r", "image": "a.png", "questions": ["x?", {"text": "y?", "id": "q2", "choices": ["yes", "no"]}]}
    (tmp_path / "q.jsonl").write_text(json.dumps(record) + "\n{\n")
    output = tmp_path / "out.parquet"
    more = ["-q", "own?", "--max-tokens", "2", "-o", str(output), "--server", demo.url]
    done = lookonce("ask", str(tmp_path / "q.jsonl"), str(data), *more)
    assert done.returncode == 1, done.stderr
    rows = pq.read_table(output).to_pylist()
    assert [each["question"] for each in rows] == ["x?", "y?", "own?", "own?", "Is it red?"]
    assert [each["id"] for each in rows] == ["r", "r", None, None, None]
    assert rows[1]["question_id"] == "q2"
    assert rows[2]["error"] == "this is not a line of JSON"
    assert dict(rows[4]["probabilities"]).keys() == {"red", "blue"}
    assert sum(dict(rows[1]["probabilities"]).values()) == pytest.approx(1, abs=1e-5)
    assert len({each["image_id"] for each in rows} - {None}) == 1


def test_another_question_is_another_run(demo: Deployment, photos: Path, tmp_path: Path) -> None:
    """Results are never mixed with those of other questions, nor written over a stranger's file."""
    output = tmp_path / "out.csv"
    command = ["ask", str(photos / "000.png"), "--max-tokens", "1", "-o", str(output), "--server", demo.url]
    assert lookonce(*command, "-q", "a?").returncode == 0
    refused = lookonce(*command, "-q", "b?")
    assert refused.returncode == 1
    assert "asked something else" in refused.stderr
    assert lookonce(*command, "-q", "b?", "--no-resume").returncode == 0
    assert "b?" in output.read_text()
    output.with_name("out.csv.journal").unlink()
    refused = lookonce(*command, "-q", "b?")
    assert refused.returncode == 1
    assert "without a run's journal" in refused.stderr


def test_warm_images_are_hits(demo: Deployment, tmp_path: Path) -> None:
    """What was warmed through the gateway needs no encoding when it is asked about."""
    picture = tmp_path / "new.png"
    picture.write_bytes(png(NUM_IMAGES + 1))
    done = lookonce("warm", str(picture), "--server", demo.url)
    assert done.returncode == 0, done.stderr
    assert "0 of 1 image needed no encoding" in done.stderr
    done = lookonce("ask", str(picture), "-q", "What?", "--max-tokens", "1", "--json", "--server", demo.url)
    assert json.loads(done.stdout)["lookonce"]["image_cache"] == ["hit"]


def test_warming_needs_a_vision_worker_alone(photos: Path, tmp_path: Path) -> None:
    """Straight to the worker, with neither language worker nor gateway: every entry is in the store, once."""
    output = tmp_path / "out.jsonl"
    folder = tmp_path / "p"
    folder.mkdir()
    for name in ("000.png", "001.png", "002.png"):
        shutil.copy(photos / name, folder)
    (folder / "bad.png").write_text("no picture")
    with (
        redis_server(tmp_path / "store") as store,
        deploy("demo", store.url, tmp_path, start=False) as deployment,
    ):
        [eye] = deployment.vision
        eye.start()
        command = ["warm", str(folder), "img_1", "--vision", eye.address]
        done = lookonce(*command, "-o", str(output))
        assert done.returncode == 1
        assert "2 failed; the first: " in done.stderr
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        assert [row["error"] is None for row in rows] == [True, True, True, False, False]
        assert "refused" in rows[3]["error"]
        assert "fetches nothing" in rows[4]["error"]
        assert all(row["image_id"].startswith("img_") and row["image_tokens"] > 0 for row in rows[:3])
        keys = [key.decode() for key in store.client.scan_iter(match="lookonce:{*")]
        images = {row["image_id"].removeprefix("img_") for row in rows[:3]}
        assert all(any(image in key for key in keys) for image in images)
        again = lookonce(*command)
        assert "3 of 3 images needed no encoding" in again.stderr


def test_a_server_that_is_not_there_is_told_at_once(photos: Path) -> None:
    """Nobody sends a folder to nobody: one line, and status 1."""
    done = lookonce("ask", str(photos), "-q", "?", "--server", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
