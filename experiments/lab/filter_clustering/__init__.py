"""Filter clustering: merge the filters of a network that are alike, with and without fine-tuning, beside pruning.

Rows are cached in the work folder under a hash of the network's weights and of the settings that they depend on; an
interrupted fine-tuning goes on from its last epoch. The test split chooses nothing: every network is scored on it once,
when it is finished.

Source: the founding document's notebook, which clusters the first convolution of every block of a ResNet-20.
"""

from lab.filter_clustering.config import CLUSTERINGS, METHODS, Config, Point, check_points
from lab.filter_clustering.correlations import FOUNDING, GRID, correlations
from lab.filter_clustering.study import Study
from lab.settings import provenance

__all__ = [
    "CLUSTERINGS",
    "FOUNDING",
    "GRID",
    "METHODS",
    "Config",
    "Point",
    "Study",
    "check_points",
    "correlations",
    "run",
]


def run(network, points, config, work_dir, verbose=1):
    """Make a network smaller in several ways.

    Args:
        network: functional Keras model of logits; left untouched.
        points: iterable of `Point`.
        config: `Config`.
        work_dir: folder (`pathlib.Path`) of the cached rows.
        verbose: as in ``fit``.

    Returns:
        Plain JSON: ``config``, ``versions``; ``baseline``, what
        `lab.filter_clustering.measures.measure` says of the network; ``rows``, see `Study.row`.

    Raises:
        ValueError: as `check_points`, before anything is made.
    """
    check_points(network, points := list(points))
    study = Study(network, config, work_dir, verbose)
    return {**provenance(config), "baseline": study.baseline(), "rows": [study.row(point) for point in points]}
