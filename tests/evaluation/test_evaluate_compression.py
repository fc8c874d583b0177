import dataclasses
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from evaluation.small_models import FORMS, a_dataset, dense_net, fitted, half_dead, outsiders, pruned

import scc_tf
from scc_tf import evaluate_compression, metrics
from scc_tf.datasets import Split
from scc_tf.evaluation import comparison, footprint
from scc_tf.flops import count_operations


@pytest.fixture(scope="module")
def net():
    return fitted(dense_net())


@pytest.fixture(scope="module")
def data():
    return a_dataset()


@pytest.fixture(scope="module")
def report(net, data):
    return evaluate_compression(net, half_dead(net), data, outsiders(), names=("float", "small"))


def logits_of(model, images):
    return np.asarray(model(images, training=False), np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_each_model_is_measured_as_it_is(name, net, data):
    """The numbers are those of the model that was passed, not of the one it came from."""
    after = FORMS[name](net)
    found = evaluate_compression(net, after, data, outsiders(), bins=10, stored=False).after
    logits = {key: logits_of(after, split.images) for key, split in data._asdict().items() if isinstance(split, Split)}
    probabilities, labels = metrics.softmax(logits["test"]), data.test.labels
    temperature = metrics.fit_temperature(logits["validation"], data.validation.labels)
    scaled = metrics.softmax(logits["test"], temperature)
    expected = {
        "accuracy": np.mean(logits["test"].argmax(axis=1) == labels),
        "negative_log_likelihood": metrics.negative_log_likelihood(probabilities, labels),
        "brier_score": metrics.brier_score(probabilities, labels),
        "expected_calibration_error": metrics.expected_calibration_error(probabilities, labels, 10),
        "expected_calibration_error_mass": metrics.expected_calibration_error(probabilities, labels, 10, "mass"),
        "maximum_calibration_error": metrics.maximum_calibration_error(probabilities, labels, 10),
        "uncertainty_calibration_error": metrics.uncertainty_calibration_error(probabilities, labels, 10),
        "temperature": temperature,
        "scaled_calibration_error": metrics.expected_calibration_error(scaled, labels, 10),
        "scaled_negative_log_likelihood": metrics.negative_log_likelihood(scaled, labels),
        "risk_coverage_area": metrics.risk_coverage(probabilities, labels).area,
    }
    assert dataclasses.asdict(found.behaviour) == pytest.approx(expected, rel=1e-6)
    assert found.ood == metrics.ood_report(logits["test"], logits_of(after, outsiders()))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
def test_size_and_work(name, net, data, tmp_path):
    after = FORMS[name](net)
    found = evaluate_compression(net, after, data).after.footprint
    plain = scc_tf.to_plain(after)
    smaller = scc_tf.remove_dead_channels(plain)[0]
    assert found.parameters == plain.count_params()
    assert found.float32_bytes == 4 * plain.count_params()
    assert found.live_parameters == smaller.count_params()
    assert found.multiply_accumulates == count_operations(plain).multiply_accumulates
    assert found.live_multiply_accumulates == count_operations(smaller).multiply_accumulates
    assert found.nonzero_multiply_accumulates == count_operations(after).nonzero_multiply_accumulates
    if name == "plain":
        assert found.stored_bytes is None
    else:
        scc_tf.save_packed(after, tmp_path / "model.scc")
        assert found.stored_bytes == (tmp_path / "model.scc").stat().st_size


@pytest.mark.slow
def test_pruning_shows(net, data, report):
    """Half of the hidden channels dead: 12 of 8 inputs and 3 outputs each become 6."""
    assert report.before.footprint.multiply_accumulates == 8 * 12 + 12 * 3
    assert report.after.footprint.multiply_accumulates == 8 * 12 + 12 * 3
    assert report.after.footprint.live_multiply_accumulates == 8 * 6 + 6 * 3
    assert report.speedup == 2.0
    assert report.compression_ratio == report.before.footprint.float32_bytes / report.after.footprint.stored_bytes


def test_surgery_shows_as_a_float32_ratio(net, data):
    """A plain network has no packed file, and needs no note for it."""
    ticket = FORMS["removed"](net)
    plain = scc_tf.to_plain(ticket)
    report = evaluate_compression(net, plain, data, names=("dense", "ticket"))
    ratio = net.count_params() / plain.count_params()
    assert report.float32_ratio == ratio > 1
    assert report.compression_ratio is None
    record = json.loads(report.to_json())
    assert (record["float32_ratio"], record["compression_ratio"]) == (ratio, None)
    summary = next(line for line in str(report).splitlines() if line.startswith("ticket: "))
    assert summary.startswith(f"ticket: float32 ratio {ratio:.2f} to dense (no packed file), ")
    assert report.notes == () and "note" not in str(report)


def test_stored_bytes_come_before_the_float32_ratio(report):
    assert report.float32_ratio == 1
    assert json.loads(report.to_json())["float32_ratio"] == 1
    assert "float32 ratio" not in str(report)


def test_a_model_without_parameters_has_no_ratio(data):
    """Nothing is left to divide by."""
    flat = keras.Sequential([keras.Input((8,)), keras.layers.Flatten()])
    labels = data._replace(class_names=())
    report = evaluate_compression(flat, flat, labels)
    assert report.float32_ratio is None and report.compression_ratio is None
    assert json.loads(report.to_json())["float32_ratio"] is None
    assert "float32 ratio" not in str(report)


def test_a_compressed_model_that_cannot_be_packed_has_a_note(net, data, monkeypatch):
    def refuse(model):
        raise ValueError("Expected something else. Received: this")

    monkeypatch.setattr(footprint, "packed_bytes", refuse)
    report = evaluate_compression(net, half_dead(net), data, names=("float", "small"))
    assert report.notes == ("small: no packed file: Expected something else.",)
    assert report.after.footprint.stored_bytes is None and "float32 ratio 1.00 to float" in str(report)


def test_a_model_against_itself(net, data):
    report = evaluate_compression(net, net, data, outsiders())
    assert report.before.behaviour == report.after.behaviour
    assert (report.agreement, report.newly_wrong, report.newly_right) == (1, 0, 0)
    assert "better" not in str(report) and "worse" not in str(report)


def test_answers_that_change_are_counted(net, data):
    """One class is never chosen any longer."""
    blind = keras.models.clone_model(net)
    blind.set_weights(net.get_weights())
    blind.get_layer("head").bias.assign([0.0, 0.0, -1e4])
    report = evaluate_compression(net, blind, data)
    before, after = (logits_of(m, data.test.images).argmax(axis=1) for m in (net, blind))
    right = before == data.test.labels
    assert report.agreement == np.mean(before == after) < 1
    assert report.newly_wrong == np.mean(right & (after != data.test.labels)) > 0
    change = report.after.behaviour.accuracy - report.before.behaviour.accuracy
    assert report.newly_right - report.newly_wrong == pytest.approx(change)


@pytest.mark.slow
def test_neither_model_changes(net, data):
    after = half_dead(net)
    weights = [[np.asarray(keras.ops.convert_to_numpy(w)) for w in m.weights] for m in (net, after)]
    evaluate_compression(net, after, data, outsiders())
    for model, old in zip((net, after), weights, strict=True):
        for weight, values in zip(model.weights, old, strict=True):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), values)


def test_probabilities_are_as_good_as_logits_but_for_the_energy(net, data):
    softmax = keras.Sequential([net, keras.layers.Softmax()])
    report = evaluate_compression(net, softmax, data, outsiders())
    ours = dataclasses.asdict(report.after.behaviour)
    assert ours == pytest.approx(dataclasses.asdict(report.before.behaviour), rel=1e-3, abs=1e-6)
    assert set(report.before.ood.scores) == {"probability", "entropy", "energy"}
    assert set(report.after.ood.scores) == {"probability", "entropy"}
    assert any("after: returns probabilities" in note for note in report.notes)
    energy = next(line for line in str(report).splitlines() if "AUROC by energy" in line)
    assert energy.split()[-1] == "-"


@pytest.mark.slow
def test_ood_images_in_any_form(net, data):
    images = outsiders()
    as_array, as_split, as_dataset = (
        evaluate_compression(net, net, data, ood, stored=False).before.ood
        for ood in (images, Split(images, np.zeros(len(images), int)), data._replace(test=Split(images, None)))
    )
    assert as_array == as_split == as_dataset


def test_without_ood_images(net, data):
    report = evaluate_compression(net, net, data)
    assert report.before.ood is None and report.examples is None and "out" not in report.images
    assert "AUROC" not in str(report)
    assert json.loads(report.to_json())["before"]["ood"] is None


@pytest.mark.slow
def test_the_examples_can_be_chosen(net, data):
    images = outsiders()
    for examples, indices in ((3, [0, 14, 29]), ([7, 2], [7, 2]), (0, []), (100, range(30))):
        report = evaluate_compression(net, net, data, images, examples=examples, stored=False)
        np.testing.assert_array_equal(report.examples, images[list(indices)])
        expected = metrics.softmax(logits_of(net, images))[list(indices)]
        np.testing.assert_allclose(report.after.curves.example_probabilities, expected, rtol=1e-5)


@pytest.mark.parametrize("bins", [np.int64(10), np.uint8(10), np.array(10)])
def test_bins_are_whole_numbers_of_any_kind(bins, net, data):
    report = evaluate_compression(net, net, data, bins=bins, stored=False)
    assert type(report.bins) is int and json.loads(report.to_json())["bins"] == 10
    assert len(report.before.curves.reliability.weight) == 10


@pytest.mark.parametrize("names", [("x", "y", "z"), np.array(["x", "y", "z"]), ["x", "y", "z"]])
def test_class_names_are_taken_as_they_come(names, net, data):
    report = evaluate_compression(net, net, data._replace(class_names=names), stored=False)
    assert report.class_names == ("x", "y", "z") and report.notes == ()
    assert json.loads(report.to_json())["class_names"] == ["x", "y", "z"]


def test_class_names_may_be_numbers(net, data):
    report = evaluate_compression(net, net, data._replace(class_names=np.array([7, 8, 9])), stored=False)
    assert report.class_names == ("7", "8", "9")
    assert json.loads(report.to_json())["class_names"] == ["7", "8", "9"]


@pytest.mark.parametrize("names", [("x", "y"), np.array(["x"])])
def test_class_names_of_the_wrong_number_are_replaced_and_noted(names, net, data):
    report = evaluate_compression(net, net, data._replace(class_names=names), stored=False)
    assert report.class_names == ("0", "1", "2")
    assert report.notes == (f"{len(names)} class names for 3 outputs: numbers stand in for them",)
    assert f"note: {report.notes[0]}" in str(report)


@pytest.mark.parametrize("names", [None, ()])
def test_data_without_class_names_need_no_note(names, net, data):
    report = evaluate_compression(net, net, data._replace(class_names=names), stored=False)
    assert report.class_names == ("0", "1", "2") and report.notes == ()


def test_names_may_be_numbers(net, data):
    report = evaluate_compression(net, net, data, names=(np.int64(1), 2), stored=False)
    assert json.loads(report.to_json())["before"]["name"] == "1"
    assert str(report).split()[:3] == ["1", "2", "change"]


def test_json_takes_numpy_numbers(report):
    changed = dataclasses.replace(report, agreement=np.float32(0.5), images={"test": np.int64(3)})
    record = json.loads(changed.to_json())
    assert (record["agreement"], record["images"]) == (0.5, {"test": 3})


@pytest.mark.slow
def test_any_object_with_splits_will_do(net, data):
    bare = SimpleNamespace(validation=data.validation, test=data.test)
    report = evaluate_compression(net, net, bare, stored=False)
    assert report.class_names == ("0", "1", "2")
    assert report.before.behaviour == evaluate_compression(net, net, data, stored=False).before.behaviour


def test_json_holds_every_number(report):
    record = json.loads(report.to_json())
    assert record["after"]["behaviour"] == dataclasses.asdict(report.after.behaviour)
    assert record["after"]["footprint"] == dataclasses.asdict(report.after.footprint)
    assert record["after"]["ood"]["scores"]["energy"] == dataclasses.asdict(report.after.ood.scores["energy"])
    assert len(record["before"]["curves"]["reliability"]["weight"]) == 15
    assert sum(record["before"]["curves"]["confidence_out"]) == pytest.approx(1)
    assert record["compression_ratio"] == report.compression_ratio
    assert "examples" not in record


def test_the_table_is_complete_and_aligned(report):
    text = str(report)
    lines = text.splitlines()
    assert lines[0].split() == ["float", "small", "change"]
    rows = [line for line in lines if line.startswith("  ")]
    assert len(rows) >= 30 and max(map(len, rows)) < 100
    accuracy = next(line for line in rows if "accuracy" in line)
    assert f"{100 * report.after.behaviour.accuracy:.2f} %" in accuracy
    difference = next(line for line in rows if "difference of the two" in line)
    assert f"{100 * report.after.ood.confidence_shift:.2f} %" in difference
    assert "times smaller than float as float32" in text
    assert "note" not in text


def test_both_kinds_of_precision_recall_are_in_the_table(report):
    lines = str(report).splitlines()
    for kind in metrics.KINDS:
        before, after = (model.ood.scores[kind] for model in (report.before, report.after))
        for label, field in (("AUPR", "aupr_in"), ("AUPR, outside positive,", "aupr_out")):
            (line,) = [line for line in lines if line.startswith(f"  {label} by {kind} ")]
            first, second = (100 * getattr(scores, field) for scores in (before, after))
            assert line.removeprefix(f"  {label} by {kind} ").split()[:4] == [f"{first:.2f}", "%", f"{second:.2f}", "%"]
            gain = second - first
            assert line.endswith("better" if gain > 0.005 else "worse" if gain < -0.005 else "points")


def test_long_names_are_whole_in_the_table(net, data):
    names = ("winning_ticket, 60 % pruned", "winning_ticket, 80 % pruned")
    lines = str(evaluate_compression(net, net, data, names=names, stored=False)).splitlines()
    heading, accuracy = lines[0], next(line for line in lines if "accuracy" in line)
    start = 0
    for name in names:
        end = heading.index(name) + len(name)
        assert heading[start : end - len(name)].isspace()
        assert accuracy[:end].endswith(" %") and accuracy[end] == " "
        start = end
    assert heading.endswith("change")


def test_short_names_do_not_narrow_the_table(net, data):
    narrow, wide = (
        str(evaluate_compression(net, net, data, names=names, stored=False)).splitlines()[0].index("change")
        for names in (("a", "b"), ("twelve chars", "twelve chars"))
    )
    assert narrow == wide


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"before": keras.Sequential([keras.layers.Dense(3)])}, "functional or Sequential"),
        ({"after": keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])}, "Received: 3 and 2 outputs"),
        ({"after": keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, "relu")])}, "one output per class"),
        (
            {"after": keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])},
            r"same classes\. Received: 3 and 4 outputs",
        ),
        (
            {"after": keras.Sequential([keras.Input((9,)), keras.layers.Dense(3)])},
            r"'after' on the validation set of shape \(None, 9\).*\(40, 8\)",
        ),
        ({"after": keras.Sequential([keras.Input((2, 4)), keras.layers.Dense(3)])}, "classifier with one output"),
        ({"data": "mnist"}, "Received: str without validation and test"),
        ({"ood": np.zeros((4, 5))}, r"'before' on the out set of shape \(None, 8\).*\(4, 5\)"),
        ({"ood": np.zeros((0, 8))}, "out set of at least one example"),
        ({"ood": np.full((4, 8), np.nan)}, "'before' on the out set to be finite"),
        ({"before": keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, "sigmoid")])}, "sigmoid on each"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"ood": (np.zeros((4, 8)), np.zeros(4, int))}, "without labels. Received: a tuple of 2"),
        ({"names": ("only",)}, "two names"),
        *(
            ({"bins": bins}, "bins to be a whole number of at least 1. Received: bins=")
            for bins in (0, -1, 1.5, "9", None, True)
        ),
        ({"examples": [99]}, "30 OOD inputs"),
        ({"examples": -1}, "examples=-1"),
    ],
)
def test_arguments_are_checked(arguments, message, net, data):
    defaults = {"before": net, "after": net, "data": data, "ood": outsiders(), "stored": False}
    with pytest.raises(ValueError, match=message):
        evaluate_compression(**defaults | arguments)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda own: np.ones((len(own), 3)), "set to hold .*not one-hot"),
        (lambda own: own[:-1], "set to hold one label per example"),
        (lambda own: own + 1, "set to hold classes from 0 to 2"),
        (lambda own: own + 0.5, "set to hold .*whole numbers"),
    ],
    ids=["several", "one too few", "out of range", "fractions"],
)
def test_labels_are_looked_at_before_a_model_is_run(split, labels, message, net, data, monkeypatch):
    def run(*arguments):
        raise AssertionError("run before the labels were checked")

    monkeypatch.setattr(comparison, "classifier_outputs", run)
    own = getattr(data, split)
    with pytest.raises(ValueError, match=message):
        evaluate_compression(net, net, data._replace(**{split: Split(own.images, labels(own.labels))}))


@pytest.mark.parametrize("form", [lambda own: np.eye(3)[own], lambda own: own[:, None]])
def test_labels_may_be_one_hot_or_a_column(form, net, data):
    splits = {name: getattr(data, name) for name in ("validation", "test")}
    changed = data._replace(**{name: Split(own.images, form(own.labels)) for name, own in splits.items()})
    reports = [evaluate_compression(net, half_dead(net), d, stored=False).to_json() for d in (data, changed)]
    assert reports[0] == reports[1]


def test_a_split_without_labels_is_named(net, data):
    with pytest.raises(ValueError, match=r"without test$"):
        evaluate_compression(net, net, SimpleNamespace(validation=data.validation, test=SimpleNamespace(images=[])))


def test_factors_of_a_larger_model_are_worded_so(net, data):
    wide = keras.Sequential([keras.Input((8,)), keras.layers.Dense(200, "relu"), keras.layers.Dense(3)])
    small, large = scc_tf.share_weights(net, clusters=2), scc_tf.share_weights(wide, clusters=16)
    text = str(evaluate_compression(small, large, data, names=("small", "large")))
    assert "times larger than small as float32" in text
    assert "times more multiply-accumulates without dead channels" in text


def test_factors_of_one_are_left_out_and_those_of_single_weights_told(net, data):
    report = evaluate_compression(net, pruned(net), data, stored=False)
    assert report.nonzero_speedup > 1.1 > 1.001 > report.speedup
    assert "without dead channels" not in str(report).splitlines()[-1]
    assert f"{report.nonzero_speedup:.2f} times fewer multiply-accumulates with weights that are not 0" in str(report)
    assert json.loads(report.to_json())["nonzero_speedup"] == report.nonzero_speedup


def test_an_empty_validation_split_is_refused(net, data):
    empty = data._replace(validation=Split(data.test.images[:0], data.test.labels[:0]))
    with pytest.raises(ValueError, match="'before' on the validation set"):
        evaluate_compression(net, net, empty)


def test_outputs_that_are_not_finite_are_refused(net, data):
    broken = keras.models.clone_model(net)
    broken.get_layer("head").bias.assign([np.nan] * 3)
    with pytest.raises(ValueError, match=r"finite outputs.*'after' on the validation set"):
        evaluate_compression(net, broken, data)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_unit_tells_two_classes_apart(activation, data):
    """Measured as the two classes of a softmax over 0 and the logit."""
    unit = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, activation, name="head")])
    both = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2, name="head")])
    kernel, bias = unit.get_weights()
    both.set_weights([np.pad(kernel, ((0, 0), (1, 0))), np.pad(bias, (1, 0))])
    splits = {name: Split(own.images, own.labels > 0) for name, own in data._asdict().items() if isinstance(own, Split)}
    report = evaluate_compression(both, unit, SimpleNamespace(**splits), outsiders(), stored=False)
    ours, expected = (dataclasses.asdict(model.behaviour) for model in (report.after, report.before))
    assert ours == pytest.approx(expected, rel=1e-4, abs=1e-6) and report.agreement == 1
    assert set(report.after.ood.scores) == {"probability", "entropy"}


@pytest.mark.slow
def test_several_inputs_are_given_by_name(data, tmp_path):
    left, right = keras.Input((5,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    model = keras.Model({"left": left, "right": right}, keras.layers.Dense(3, name="head")(joined))
    compressed = scc_tf.self_compress(model)

    def named(images):
        return {"right": images[:, 5:], "left": images[:, :5]}

    splits = {
        name: Split(named(own.images), own.labels) for name, own in data._asdict().items() if isinstance(own, Split)
    }
    report = evaluate_compression(model, compressed, SimpleNamespace(**splits), named(outsiders()), examples=2)
    expected = np.mean(np.asarray(model(named(data.test.images))).argmax(1) == data.test.labels)
    assert report.before.behaviour.accuracy == expected and report.images["test"] == 60
    report.save_figure(tmp_path / "page.png")
