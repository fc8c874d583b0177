import keras
import numpy as np
import pytest
from lab import models, teacher
from lab.batches import training_batches
from lab.teacher import answers, one_hot, soft_labels
from patterns import small_data

DATA = small_data()


def small_net(seed=None):
    initial = keras.initializers.HeNormal(seed)
    image = keras.Input((6, 6, 1))
    x = keras.layers.BatchNormalization(epsilon=1e-5)(keras.layers.Flatten()(image))
    return keras.Model(image, keras.layers.Dense(10, kernel_initializer=initial)(x))


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "mnist_cnn", small_net)
        patch.setattr(teacher, "BATCH_SIZE", 20)
        yield tmp_path_factory.mktemp("work")


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.slow
def test_labels_are_mixed_with_what_the_teacher_says_of_the_shifted_image(work_dir):
    mixed = soft_labels(DATA, 1, 0.25, 3.0, work_dir, verbose=0)
    assert mixed.shape == (3, 3, len(DATA.train.labels), 10)
    np.testing.assert_allclose(mixed.sum(-1), 1, rtol=1e-5)
    said = (mixed - 0.75 * one_hot(DATA.train.labels, 10)) / 0.25
    logits = np.load(next(work_dir.rglob("logits.npy"))).astype(np.float32)
    np.testing.assert_allclose(said, softmax(logits / 3), atol=1e-5)


@pytest.mark.slow
def test_the_teacher_is_trained_once_on_the_training_split_alone(work_dir, monkeypatch):
    first = soft_labels(DATA, 1, 0.5, 1.0, work_dir, verbose=0)
    monkeypatch.setattr(keras.Model, "fit", lambda *arguments, **options: pytest.fail("trained again"))
    monkeypatch.setattr(keras.Model, "predict", lambda *arguments, **options: pytest.fail("asked again"))
    other = DATA._replace(validation=None, test=None)
    np.testing.assert_array_equal(soft_labels(other, 1, 0.5, 1.0, work_dir, verbose=0), first)


@pytest.mark.slow
def test_a_batch_has_the_answers_for_its_own_images_at_their_own_shifts():
    model = small_net(0)
    table = answers(model, DATA.train.images, 2).astype(np.float32)
    batches, _ = training_batches(DATA.train, 20, seed=3, shift=2, soft_labels=table)
    for images, labels in batches.take(3):
        np.testing.assert_allclose(labels, model(images), atol=5e-3)


def test_no_weight_leaves_the_labels(tmp_path):
    (folder := tmp_path / f"teacher-{teacher.EPOCHS}-0").mkdir()
    np.save(folder / "logits.npy", np.zeros((1, 1, len(DATA.train.labels), 10), np.float16))
    mixed = soft_labels(DATA, 0, 0.0, 1.0, tmp_path)
    np.testing.assert_array_equal(mixed[0, 0].argmax(-1), DATA.train.labels)
    np.testing.assert_array_equal(mixed.max(-1), 1)


def test_damaged_answers_say_what_to_do(tmp_path):
    (folder := tmp_path / f"teacher-{teacher.EPOCHS}-0").mkdir()
    (folder / "logits.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged; delete it"):
        soft_labels(DATA, 0, 0.5, 1.0, tmp_path)
