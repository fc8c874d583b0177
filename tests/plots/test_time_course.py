import keras
import numpy as np
import pytest
from matplotlib.text import Text

import scc_tf
from scc_tf import callbacks, plots

STEPS = range(0, 600, 100)
SIZES = [{"step": step, "integer_bytes": 80_000 * 0.6 ** (step / 100)} for step in STEPS]
CHECKS = [
    {"step": s, "safety_accuracy": 0.98 - d, "safety_drop": d}
    for s, d in zip(STEPS, (0, 0, 0.09, 0, 0, 0), strict=True)
]
EVENTS = [{"step": 200, "safety_drop": 0.09, "restored": {"conv2/kernel": 4, "conv3/kernel": 3}}]
LOOKS = [
    {"step": s, "parameters": 9000 - s, "step_ms": ms}
    for s, ms in zip(STEPS, (np.nan, 42, 40, 33, 30, 25), strict=True)
]


def words(figure):
    return {text.get_text() for text in figure.findobj(Text)}


@pytest.mark.slow
def test_what_the_callbacks_keep_is_drawn(rendered):
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(64, 6)).astype(np.float32), np.arange(64) % 3
    plain = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, name="hidden"), keras.layers.Dense(3)])
    safety = scc_tf.SafetySet(**vars(scc_tf.select_safety_set(plain, images, labels, size=6, verbose=0)))
    model = scc_tf.self_compress(plain)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), gamma=1.0, run_eagerly=True)
    sizes, watch = callbacks.SizeLogger(1), callbacks.SafetyMonitor(safety, 1)
    keep, removal = callbacks.KernelRestoration(watch), callbacks.ChannelRemoval(1)
    model.fit(images, labels, batch_size=16, callbacks=[sizes, watch, keep, removal], verbose=0)
    rendered(plots.size_and_accuracy, sizes.history, watch.history, events=keep.events)
    rendered(plots.restoration_events, watch.history, events=keep.events, threshold=0.05)
    rendered(plots.network_and_step_time, removal.history)


def test_restorations_are_counted(drawn):
    for events, text in ((EVENTS, "1 restoration, 7 channels revived"), ((), "No restoration was made")):
        assert {text, "tolerated: 5 points"} <= words(
            drawn(plots.restoration_events, CHECKS, events=events, threshold=0.05)
        )


@pytest.mark.parametrize("step", [0, 300, 500])
def test_a_reversion_is_a_labelled_line(drawn, step):
    label = f"went back to step {step}"
    assert label in words(drawn(plots.size_and_accuracy, SIZES, CHECKS, reverted_to_step=step))
    assert label in words(drawn(plots.restoration_events, CHECKS, reverted_to_step=step))
    assert label not in words(drawn(plots.size_and_accuracy, SIZES, CHECKS))


def test_the_time_of_the_first_and_the_last_steps_is_the_title(drawn):
    assert "A step takes 42 ms at first and 25 ms in the end" in words(drawn(plots.network_and_step_time, LOOKS))


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: plots.size_and_accuracy([], CHECKS, path),
        lambda path: plots.size_and_accuracy(SIZES, [{"step": 0, "safety_accuracy": np.nan}], path),
        lambda path: plots.network_and_step_time(LOOKS[:1], path),
    ],
)
def test_what_cannot_be_drawn_leaves_no_file(tmp_path, draw):
    with pytest.raises(ValueError, match="Expected a history of finite"):
        draw(tmp_path / "course.png")
    assert not list(tmp_path.iterdir())
