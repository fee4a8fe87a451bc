"""Train the demo checkpoint from scratch on the CPU: `python -m demo.train --minutes 100`.

First the vision tower learns alone what each image token shows; then both halves learn the questions, with that
auxiliary loss kept. Two processes of one thread share the work and average their gradients. Progress is kept under
--work and taken up again on restart.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

from demo.batches import IGNORE, ImageBatch, Packer, QuestionBatch, image_batch, question_batch, random_scenes
from demo.model import AUX_SPLIT, TrainingForward, build_config, build_generation_config, build_image_processor
from demo.questions import KINDS
from demo.tokenizer import build_tokenizer, save_tokenizer

CHECKPOINT = Path(__file__).parent / "checkpoint"
# Learning rate, weight of the auxiliary loss, largest scenes, and how often a kind of question is asked relative to 1.
DEFAULTS: dict[str, float] = {
    "lr": 2e-3,
    "aux": 0.3,
    "max_objects": 4,
    "left_right": 3,
    "side": 3,
    "above_below": 1.5,
    "count_color": 1.5,
    "count_shape": 1.5,
    "describe": 0.8,
}
ONE_SIDED = 0.5  # share of right-of questions left out until left-of and right-of are told apart


@dataclass
class State:
    """Where the training is; written beside the weights."""

    step: int = 0
    elapsed_s: float = 0.0
    asking: bool = False  # the second phase: questions
    asking_since_s: float = 0.0
    both_sides: bool = False  # left-of and right-of are told apart


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line sets."""

    minutes: float
    work: Path
    output: Path
    rank: int
    world: int
    images: int  # a step and process, with questions; twice as many without
    per_image: int
    seed: int


class Optimizer:
    """Muon for the layers' matrices, AdamW for the rest."""

    def __init__(self, forward: TrainingForward) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in forward.named_parameters():
            inner = parameter.ndim == 2 and "embed_tokens" not in name and "aux_head" not in name
            (matrices if inner else others).append(parameter)
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.parameters = matrices + others

    def step(self, lr: float) -> None:
        """One update at learning rate `lr`; gradients are cleared."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()
            part.zero_grad()


class Metrics:
    """Shares of right answers since the last report."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, name: str, total: float, count: float) -> None:
        """Add `count` cases whose values sum to `total`."""
        entry = self._sums.setdefault(name, [0.0, 0.0])
        entry[0] += total
        entry[1] += count

    def take(self) -> dict[str, float]:
        """The means so far, and start again."""
        means = {name: total / count for name, (total, count) in self._sums.items() if count}
        self._sums = {}
        return means


def aux_loss(logits: Tensor, batch: ImageBatch, metrics: Metrics) -> Tensor:
    """What each image token shows, against the truth."""
    shape, color, size, centre, xy = torch.split(logits, AUX_SPLIT, dim=-1)
    here = batch.centre.bool()
    for name, guess, truth in (
        ("shape", shape, batch.shape),
        ("color", color, batch.color),
        ("size", size, batch.size),
    ):
        right = (guess.argmax(-1) == truth) & here & (truth != IGNORE)
        metrics.add(f"see_{name}", float(right.sum()), float((here & (truth != IGNORE)).sum()))
    on = batch.shape > 0
    distance = (xy - batch.xy)[on].abs()
    metrics.add("see_xy_px", float(distance.detach().sum()) * 84 / 2, float(on.sum()))
    loss: Tensor = (
        2 * F.cross_entropy(shape.flatten(0, 1), batch.shape.flatten(), ignore_index=IGNORE)
        + F.cross_entropy(color.flatten(0, 1), batch.color.flatten(), ignore_index=IGNORE)
        + F.cross_entropy(size.flatten(0, 1), batch.size.flatten(), ignore_index=IGNORE)
        + F.binary_cross_entropy_with_logits(centre.squeeze(-1), batch.centre.float())
        + 2 * distance.square().mean()
        + distance.mean()
    )
    return loss


def answer_loss(logits: Tensor, batch: QuestionBatch, metrics: Metrics) -> Tensor:
    """Mean over the questions of each answer's mean loss; counts an answer as right when every token of it is."""
    losses = F.cross_entropy(logits, batch.labels, reduction="none")
    count = len(batch.kinds)
    wrong = torch.zeros(count).index_add_(0, batch.owner, (logits.argmax(-1) != batch.labels).float())
    right = (wrong == 0).tolist()
    for kind, is_right in zip(batch.kinds, right, strict=True):
        metrics.add(KINDS[kind], float(is_right), 1.0)
    return losses.sum() / count


def learning_rate(peak: float, state: State, total_s: float) -> float:
    """Short warm-ups at the start of both phases, flat, then linear to zero over the last 45 % of the time."""
    since = state.elapsed_s - state.asking_since_s
    warm = min(1.0, (since + 1) / 20)
    left = max(0.0, 1 - state.elapsed_s / total_s)
    return peak * warm * min(1.0, left / 0.45)


def average_gradients(parameters: list[nn.Parameter], world: int) -> None:
    """Make every process's gradients their mean."""
    if world == 1:
        return
    flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= world
    offset = 0
    for parameter in parameters:
        size = parameter.numel()
        if parameter.grad is not None:
            parameter.grad.copy_(flat[offset : offset + size].view_as(parameter))
        offset += size


class Trainer:
    """One process of the training."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.tokenizer = AutoTokenizer.from_pretrained(options.work / "tokenizer")
        self.packer = Packer(self.tokenizer)
        torch.manual_seed(options.seed)
        model = Qwen2VLForConditionalGeneration(build_config(self.tokenizer)).float()
        self.forward = TrainingForward(model)
        self.state = State()
        self._resume()
        self.optimizer = Optimizer(self.forward)
        self.rng = np.random.default_rng([options.seed, options.rank, self.state.step])
        self.metrics = Metrics()
        self.settings = {**DEFAULTS, "one_sided": ONE_SIDED}

    def _resume(self) -> None:
        weights = self.options.work / "weights.safetensors"
        if weights.exists():
            self.forward.load_state_dict(load_file(weights), strict=False)
            self.state = State(**json.loads((self.options.work / "state.json").read_text()))

    def run(self) -> None:
        """Train until the time is up, then write the checkpoint."""
        total_s = self.options.minutes * 60
        last = time.monotonic()
        # On the shared clock: what every process takes part in must come at the same step in all of them.
        saved = reported = self.state.elapsed_s
        while self.state.elapsed_s < total_s:
            self._step(total_s)
            now = time.monotonic()
            self._share_clock(now - last)
            last = now
            if self.state.step % 25 == 0:
                self._read_settings()
            if self.state.elapsed_s - reported > 30:
                reported = self.state.elapsed_s
                self._report()
            if self.state.elapsed_s - saved > 120:
                saved = self.state.elapsed_s
                self._save()
        self._report()
        self._save()

    def _step(self, total_s: float) -> None:
        options, state = self.options, self.state
        count = options.images if state.asking else 2 * options.images
        scenes = random_scenes(self.rng, count, int(self.settings["max_objects"]))
        pictures = image_batch(scenes)
        tokens = self.forward.encode(pictures.patches)
        aux = aux_loss(self.forward.aux_head(tokens), pictures, self.metrics)
        self.metrics.add("aux_loss", float(aux.detach()), 1)
        loss = aux
        if state.asking:
            asked = question_batch(self.rng, self.packer, scenes, self.settings, options.per_image)
            logits = self.forward.answer_logits(tokens, asked.input_ids, asked.positions, asked.mask, asked.targets)
            answers = answer_loss(logits, asked, self.metrics)
            self.metrics.add("loss", float(answers.detach()), 1)
            loss = answers + self.settings["aux"] * aux
        torch.autograd.backward(loss)
        average_gradients(self.optimizer.parameters, options.world)
        self.optimizer.step(learning_rate(self.settings["lr"], state, total_s))
        state.step += 1

    def _share_clock(self, seconds: float) -> None:
        """All processes use the first one's clock, so that they agree on rates and on the end."""
        clock = torch.tensor([seconds])
        if self.options.world > 1:
            dist.broadcast(clock, src=0)
        self.state.elapsed_s += float(clock)

    def _read_settings(self) -> None:
        """Take up changes from settings.json, which may be edited while the training runs."""
        path = self.options.work / "settings.json"
        found = [json.loads(path.read_text()) if path.exists() and self.options.rank == 0 else {}]
        if self.options.world > 1:
            text = json.dumps(found[0]).encode().ljust(2048)
            data = torch.frombuffer(bytearray(text), dtype=torch.uint8).clone()
            dist.broadcast(data, src=0)
            found = [json.loads(bytes(data.tolist()))]
        one_sided = 0.0 if self.state.both_sides else ONE_SIDED
        self.settings = {**DEFAULTS, "one_sided": one_sided, **found[0]}

    def _report(self) -> None:
        means = self.metrics.take()
        self._advance(means)
        if self.options.rank == 0:
            parts = " ".join(f"{name}={value:.3f}" for name, value in means.items())
            state = self.state
            print(f"step {state.step} {state.elapsed_s / 60:.1f} min asking={int(state.asking)} {parts}", flush=True)

    def _advance(self, means: dict[str, float]) -> None:
        """Start the questions once shapes are seen, or after a sixth of the time; both sides once they are learnt."""
        ready = means.get("see_shape", 0) > 0.985 or self.state.elapsed_s > self.options.minutes * 10
        both = means.get("left_right", 0) > 0.93
        flags = torch.tensor([float(ready), float(both)])
        if self.options.world > 1:
            dist.broadcast(flags, src=0)
        if bool(flags[0]) and not self.state.asking:
            self.state.asking = True
            self.state.asking_since_s = self.state.elapsed_s
        self.state.both_sides |= bool(flags[1])

    def _save(self) -> None:
        if self.options.rank != 0:
            return
        work = self.options.work
        names = {name for name, _ in self.forward.named_parameters()}
        weights = {n: t.detach().clone().contiguous() for n, t in self.forward.state_dict().items() if n in names}
        save_file(weights, work / "weights.tmp")
        os.replace(work / "weights.tmp", work / "weights.safetensors")
        (work / "state.json").write_text(json.dumps(asdict(self.state)))
        self.export(self.options.output)

    def export(self, output: Path) -> None:
        """Write the Hugging Face checkpoint; each file is replaced at once."""
        fresh = self.options.work / "export"
        self.forward.model.generation_config = build_generation_config(self.tokenizer)
        self.forward.model.save_pretrained(fresh)
        build_image_processor().save_pretrained(fresh)
        save_tokenizer(self.tokenizer, fresh)
        output.mkdir(parents=True, exist_ok=True)
        for path in fresh.iterdir():
            path.chmod(0o644)
            os.replace(path, output / path.name)


def parse() -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=100, help="training time, resumed time included")
    parser.add_argument("--work", type=Path, default=Path(".cache/demo-train"), help="where progress is kept")
    parser.add_argument("--output", type=Path, default=CHECKPOINT, help="where the checkpoint goes")
    parser.add_argument("--processes", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--images", type=int, default=16, help="pictures a step and process")
    parser.add_argument("--per-image", type=int, default=12, help="questions a picture")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data")
    given = parser.parse_args()
    return Options(
        minutes=given.minutes,
        work=given.work,
        output=given.output,
        rank=int(os.environ.get("DEMO_RANK", "-1")),
        world=given.processes,
        images=given.images,
        per_image=given.per_image,
        seed=given.seed,
    )


def launch(options: Options) -> int:
    """Start the processes with this command line and wait for them."""
    options.work.mkdir(parents=True, exist_ok=True)
    if not (options.work / "tokenizer").exists():
        save_tokenizer(build_tokenizer(), options.work / "tokenizer")
    meeting = options.work / "meeting"
    meeting.unlink(missing_ok=True)
    command = [sys.executable, "-m", "demo.train", *sys.argv[1:]]
    ranks = [
        # S603: this interpreter with this command line, no shell.
        subprocess.Popen(command, env={**os.environ, "DEMO_RANK": str(rank), "OMP_NUM_THREADS": "1"})  # noqa: S603
        for rank in range(options.world)
    ]
    return _wait(ranks)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> int:
    """0, or the first failure's exit status, having stopped the others, which would wait for it."""
    while True:
        codes = [process.poll() for process in ranks]
        failed = [code for code in codes if code]
        if failed:
            for process in ranks:
                process.terminate()
            return failed[0]
        if None not in codes:
            return 0
        time.sleep(0.2)


def main() -> int:
    """Launch the processes, or be one of them."""
    options = parse()
    if options.rank < 0:
        return launch(options)
    torch.set_num_threads(1)
    if options.world > 1:
        store = f"file://{(options.work / 'meeting').resolve()}"
        dist.init_process_group("gloo", init_method=store, rank=options.rank, world_size=options.world)
    Trainer(options).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
