"""From a trained self-compressing model to the one that goes into a file."""

from absl import logging

from scc_tf.batch_statistics import reestimate_batch_statistics
from scc_tf.dead_zone import fit_to_bytes
from scc_tf.export.packed import packed_bytes
from scc_tf.side_information import round_exponents, round_vectors
from scc_tf.surgery import remove_dead_channels

__all__ = ["finish", "finish_to_bytes", "finished_bytes"]


def finish(model, images, exponent_places=3, statistics_bits=10):
    """Make a trained model ready for its file.

    Removes the channels and inputs whose weights are all zero, rounds the exponents, re-estimates the batch statistics
    that go with them, and rounds biases and statistics.

    Args:
        model: compiled `scc_tf.SelfCompressingModel`, left untouched.
        images: training images to re-estimate batch statistics from, augmented as in training.
        exponent_places: binary places that exponents keep. With ``size_model="entropy"`` the weights move along, and
            the codes stay: weights gather at the edges of their rounding intervals there.
        statistics_bits: bits of the mantissa that biases and statistics keep; 10 is float16.

    Returns:
        The smaller model.
    """
    return _settled(_smaller(model, exponent_places), images, statistics_bits)


def finished_bytes(model, exponent_places=3, statistics_bits=10):
    """Length of the file that a model in training would have after `finish`, but for its batch statistics.

    Args:
        model: as for `finish`.
        exponent_places: as for `finish`.
        statistics_bits: as for `finish`.
    """
    smaller = _smaller(model, exponent_places)
    round_vectors(smaller, statistics_bits)
    return len(packed_bytes(smaller))


def finish_to_bytes(model, images, target_bytes, exponent_places=3, statistics_bits=10, is_safe=None):
    """`finish`, with the dead zone that gives the file its size (`scc_tf.dead_zone.fit_to_bytes`).

    Args:
        model: as for `finish`; its layers round to the nearest code.
        images: as for `finish`.
        target_bytes: length of the file.
        exponent_places: as for `finish`.
        statistics_bits: as for `finish`.
        is_safe: function ``model -> bool``. No dead zone is taken whose model it refuses: the file then comes as close
            to its size as safety allows.

    Returns:
        ``(smaller model, scc_tf.dead_zone.SizeFit)``.
    """

    def settled(candidate):
        """A copy without the channels that have died, with the batch statistics of its weights."""
        return _settled(remove_dead_channels(candidate)[0], images, statistics_bits)

    fitted = _smaller(model, exponent_places)
    fit = fit_to_bytes(fitted, target_bytes, lambda candidate: len(packed_bytes(candidate)), is_safe, prepare=settled)
    return settled(fitted), fit


def _smaller(model, exponent_places):
    """A copy without dead channels, with rounded exponents."""
    smaller, report = remove_dead_channels(model)
    logging.debug("%s", report)
    round_exponents(smaller, exponent_places, rescale=model.size_model == "entropy")
    return smaller


def _settled(model, images, statistics_bits):
    """The same model, with the batch statistics that go with its weights, rounded like its biases."""
    reestimate_batch_statistics(model, images)
    round_vectors(model, statistics_bits)
    return model
