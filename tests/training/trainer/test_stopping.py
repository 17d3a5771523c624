"""A run that is asked to stop while it judges or tries: nothing of that is kept, and it goes on as if it had not been."""

import pytest
import torch
from opensora_comfy.training import checkpoints
from opensora_comfy.training.checkpoints import entries
from opensora_comfy.training.trainer.stopping import Stopped, stoppable
from safetensors import safe_open
from safetensors.torch import load_file
from small_runs import clip, mixed_clips, network, prepared, trainer


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def examples(cache):
    return prepared(cache, mixed_clips(), seed=3)


@pytest.fixture(scope="module")
def held(cache):
    return prepared(cache, [clip(20), clip(21)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, examples, held):
    """The run that nobody stops."""
    running = trainer(tmp_path_factory.mktemp("whole"), examples, validation=held)
    running.run()
    return running


def curve(folder):
    return [
        {name: value for name, value in line.items() if name != "seconds"} for line in entries(folder / "log.jsonl")
    ]


def same_run(left, right):
    assert curve(left.folder) == curve(right.folder)
    assert all(torch.equal(left.parameters[name], value) for name, value in right.parameters.items())
    best = [load_file(each.folder / "best.safetensors") for each in (left, right)]
    assert all(torch.equal(best[0][name], value) for name, value in best[1].items()) and left.best == right.best


class Asked:
    """Becomes true when it has been asked so often."""

    def __init__(self, times):
        self.left = times

    def __call__(self):
        self.left -= 1
        return self.left < 0


def looks(network, call):
    """How often blocks ask while `call` runs."""
    count = [0]

    def ask():
        count[0] += 1
        return False

    with stoppable(network, ask):
        call()
    return count[0]


def test_blocks_ask_on_both_ways_and_afterwards_no_more(tmp_path, examples):
    running = trainer(tmp_path, examples)
    module, batch = running.network, running.schedule.largest()
    forward = looks(module, lambda: running.learner(batch))
    both = looks(module, lambda: running.learner(batch).sum().backward())
    blocks = len(module.spatial_blocks) + len(module.temporal_blocks)
    assert forward >= 1 + blocks and both >= forward + blocks
    for times in (0, forward - 1, both - 1):
        with pytest.raises(Stopped), stoppable(module, Asked(times)):
            running.learner(batch).sum().backward()
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())


@pytest.mark.parametrize("times", [0, 5, "last"])
def test_stopped_in_the_trial_nothing_has_begun(tmp_path, examples, held, whole, times):
    running = trainer(tmp_path, examples, validation=held)
    times = looks(running.network, running.try_largest) - 1 if times == "last" else times
    running.asked = Asked(times)
    result = running.run()
    assert result["step"] == 0 and not curve(tmp_path) and not list(tmp_path.glob(checkpoints.PATTERN))
    assert all(p.grad is None for p in running.parameters.values())
    on = trainer(tmp_path, examples, validation=held)
    on.run()
    same_run(on, whole)


@pytest.mark.parametrize("step", [0, 5, 10])
def test_stopped_in_validation_it_is_made_up_for(tmp_path, examples, held, whole, step):
    """The learning weights are back in their place, and where the run goes on, it judges first."""
    running = trainer(tmp_path, examples, validation=held)
    judge, learning = running.judge, {}

    def stopped_in_the_midst():
        if running.step == step:
            learning.update({name: value.detach().clone() for name, value in running.parameters.items()})
            running.asked = Asked(30)
        judge()

    running.judge = stopped_in_the_midst
    result = running.run()
    assert running.asked.left < 0 and running.step == step
    assert [line["step"] for line in curve(tmp_path) if "validation" in line] == [0, 5, 10][: step // 5]
    assert all(torch.equal(running.parameters[name], value) for name, value in learning.items())
    best = [line for line in curve(whole.folder) if "validation" in line and line["step"] < step]
    assert result["step"] == (min(best, key=lambda line: line["validation"])["step"] if best else 0)
    on = trainer(tmp_path, examples, validation=held)
    on.run()
    same_run(on, whole)


def test_a_stop_replaces_the_best_by_better_ones_alone(tmp_path, examples, held, monkeypatch):
    """Stopped at step 3, it is judged once more; what came out was worse, then better."""
    losses = iter([1.0, 2.0, 0.5])
    judged = "opensora_comfy.training.trainer.trainer.judged"
    monkeypatch.setattr(judged, lambda *given: {"validation": next(losses), "low": 0, "middle": 0, "high": 0})

    def run(stop):
        on_step = lambda entry: entry["step"] == stop and "loss" in entry  # noqa: E731
        running = trainer(tmp_path, examples, validation=held, on_step=on_step, saving={"validate_every": 99})
        return running.run()

    def kept():
        with safe_open(tmp_path / "best.safetensors", "pt") as file:
            return file.metadata()

    assert run(3) == {"step": 0, "loss": 1.0} and kept() == {"step": "0", "loss": "1.0"}
    assert run(4) == {"step": 4, "loss": 0.5} and kept() == {"step": "4", "loss": "0.5"}


def test_better_weights_than_the_checkpoint_knows_stay_the_best(tmp_path, examples, held):
    """As where a run is killed right behind the validation that follows upon a stop."""
    running = trainer(tmp_path, examples, validation=held, train={"steps": 4})
    result = running.run()
    state = checkpoints.newest(tmp_path)
    checkpoints.save(tmp_path, 4, state | {"best": {"step": 0, "loss": result["loss"] + 1}})
    assert result["step"] == 4 and trainer(tmp_path, examples, validation=held, train={"steps": 4}).run() == result
    # Weights of a step that the run has not come to again are none of it.
    checkpoints.save(tmp_path, 3, state | {"step": 3, "best": {"step": 0, "loss": result["loss"] + 1}})
    on = trainer(tmp_path, examples, validation=held)
    on.resume()
    assert on.best["step"] == 0


def test_the_network_of_each_family_asks(tmp_path):
    for family in ("stdit", "stdit2", "stdit3", "stdit3_v1_3", "pixart"):
        module = network(family)
        lists = [name for name, part in module.named_children() if isinstance(part, torch.nn.ModuleList)]
        assert any("blocks" in name for name in lists), family
