import keras
import numpy as np
import pytest
from evaluation.small_models import a_dataset, conv_net, dense_net, half_dead, images, outsiders
from matplotlib.image import imread

import scc_tf
from scc_tf import evaluate_compression


@pytest.mark.slow
def test_the_page_of_images(tmp_path):
    net = conv_net()
    shared = scc_tf.share_weights(net, clusters=4)
    report = evaluate_compression(net, shared, a_dataset(images), outsiders(images), examples=3)
    report.save_figure(tmp_path / "page.png")
    height, width = imread(tmp_path / "page.png").shape[:2]
    assert (height, width) == (1260, 1240)
    assert (tmp_path / "page.png").stat().st_size < 400_000


@pytest.mark.slow
def test_points_have_no_pictures_and_probabilities_no_energy(tmp_path):
    net = dense_net()
    softmax = keras.Sequential([net, keras.layers.Softmax()])
    report = evaluate_compression(softmax, half_dead(net), a_dataset(), outsiders(), examples=2)
    report.save_figure(tmp_path / "page.png")
    assert imread(tmp_path / "page.png").shape[0] == 1260


@pytest.mark.slow
def test_without_ood_images_the_page_is_shorter(tmp_path):
    net = dense_net()
    evaluate_compression(net, net, a_dataset()).save_figure(tmp_path / "page.png")
    page = imread(tmp_path / "page.png")
    assert page.shape[0] == 840 and np.isfinite(page).all()
