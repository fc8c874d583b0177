import numpy as np
import pytest
from matplotlib.image import imread

from scc_tf.plots import safety_gallery
from scc_tf.safety import SafetySet


def a_set(colours=1, per_reason=12, size=28, noise=0.1):
    """Smooth shapes with some noise, as in a photograph."""
    rng = np.random.default_rng(0)
    count = 3 * per_reason
    x = np.linspace(0, 1, size)
    waves = np.sin(9 * x[:, None, None] * rng.random((count, 1, 1, colours)) + 7 * x[:, None])
    grain = noise * rng.normal(size=(count, size, size, colours))
    return SafetySet(
        images=(waves + grain).astype(np.float32),
        labels=rng.integers(0, 10, count),
        indices=np.arange(count),
        reasons=np.repeat(["attention", "uncertainty", "diversity"], per_reason),
        attention=np.ones(count, np.float32),
        margin=rng.random(count).astype(np.float32),
        cluster=np.zeros(count, np.int64),
        heat_maps=np.outer(np.linspace(0, 255, count * size), x).reshape(count, size, size).astype(np.uint8),
    )


def only(safety_set, reason):
    keep = safety_set.reasons == reason
    return SafetySet(**{name: part[keep] for name, part in vars(safety_set).items()})


@pytest.mark.slow
@pytest.mark.parametrize(("colours", "size"), [(1, 28), (3, 32)])
def test_a_small_figure_is_written_whatever_the_colours(tmp_path, colours, size):
    path = tmp_path / "gallery.png"
    safety_gallery(a_set(colours, size=size), path, class_names=list("abcdefghij"))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 200_000
    height, width = imread(path).shape[:2]
    assert 600 < height < 1200
    assert 800 < width < 1200


@pytest.mark.slow
def test_image_and_heat_are_drawn(tmp_path):
    plain, path = a_set(per_reason=2), tmp_path / "gallery.png"
    pictures = []
    hot = SafetySet(**{**vars(plain), "heat_maps": np.full_like(plain.heat_maps, 255)})
    other = SafetySet(**{**vars(plain), "images": plain.images[::-1]})
    for safety_set in (plain, hot, other):
        safety_gallery(safety_set, path)
        pictures.append(imread(path))
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


@pytest.mark.slow
def test_only_the_reasons_that_are_there_get_a_band(tmp_path):
    heights = []
    for safety_set in (a_set(), only(a_set(), "diversity")):
        safety_gallery(safety_set, tmp_path / "gallery.png", per_reason=2)
        heights.append(imread(tmp_path / "gallery.png").shape[0])
    assert heights[0] == pytest.approx(3 * heights[1], abs=3)


@pytest.mark.slow
def test_an_image_of_one_shade(tmp_path):
    flat = SafetySet(**{**vars(a_set()), "images": np.full((36, 28, 28, 1), 0.5, np.float32)})
    safety_gallery(flat, tmp_path / "gallery.png", per_reason=1)
    assert np.isfinite(imread(tmp_path / "gallery.png")).all()


@pytest.mark.parametrize(
    ("safety_set", "wrong", "message"),
    [
        (a_set(per_reason=0), {}, "S > 0"),
        (a_set(colours=2), {}, "1 or 3"),
        (a_set(), {"per_reason": 0}, "per_reason=0"),
        (a_set(), {"class_names": ["zero"]}, "1 class names"),
    ],
)
def test_arguments_are_checked(safety_set, wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        safety_gallery(safety_set, tmp_path / "gallery.png", **wrong)


@pytest.mark.slow
def test_a_figure_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "gallery.png"
    path.write_bytes(b"old")

    def fail(image, file, **settings):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    with pytest.raises(OSError, match="disk full"):
        safety_gallery(a_set(per_reason=1), path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["gallery.png"]
