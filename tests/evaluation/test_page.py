"""Reports of real models are drawn; what stands on the page: ``tests/plots/test_two_models.py``."""

import keras
import pytest
from evaluation.small_models import a_dataset, conv_net, dense_net, half_dead, images, outsiders
from matplotlib.image import imread

import scc_tf
from scc_tf import evaluate_compression


def page_of(report, path):
    report.save_figure(path)
    assert path.stat().st_size < 200_000
    return imread(path)


@pytest.mark.slow
def test_the_page_of_images(tmp_path):
    net = conv_net()
    shared = scc_tf.share_weights(net, clusters=4)
    report = evaluate_compression(net, shared, a_dataset(images), outsiders(images), examples=3)
    assert page_of(report, tmp_path / "page.png").shape[:2] == (1134, 1116)


@pytest.mark.slow
def test_points_have_no_pictures_and_probabilities_no_energy(tmp_path):
    net = dense_net()
    softmax = keras.Sequential([net, keras.layers.Softmax()])
    report = evaluate_compression(softmax, half_dead(net), a_dataset(), outsiders(), examples=2)
    assert page_of(report, tmp_path / "page.png").shape[0] == 1134


@pytest.mark.slow
def test_without_ood_images_the_page_is_shorter(tmp_path):
    net = dense_net()
    assert page_of(evaluate_compression(net, net, a_dataset()), tmp_path / "page.png").shape[0] == 756


def test_a_page_of_another_kind_is_refused(tmp_path):
    net = dense_net()
    report = evaluate_compression(net, net, a_dataset(), stored=False)
    with pytest.raises(ValueError, match=r"Expected the path of a \.png file\. Received: .*page\.pdf"):
        report.save_figure(tmp_path / "page.pdf")
    assert not list(tmp_path.iterdir())
