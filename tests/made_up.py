import copy

from matplotlib.text import Text

KERNELS = {"conv1/kernel": 32, "conv2/kernel": 32, "conv3/kernel": 64, "conv4/kernel": 64, "head/kernel": 10}


def a_row(drops=(0.0, 0.01, 0.09, 0.004, 0.0), **changes):
    """What `lab.self_compression.compress` records, with a restoration wherever the drop passes 5 points."""
    sizes = [88_850.0 * 0.6**check for check in range(len(drops))]
    history = [
        {"step": 100 * i, "safety_accuracy": 0.985 - d, "safety_drop": d, "integer_bytes": size}
        for i, (d, size) in enumerate(zip(drops, sizes, strict=True))
    ]
    restored = {"conv2/kernel": 4, "conv3/kernel": 3}
    return {
        "test_accuracy": 0.99051,
        "size": {"stored_bytes": 0.8 * sizes[-1]},
        "network": [
            {"step": 100 * i, "parameters": 87_456.0 * 0.5**i, "channels": 202.0}
            | ({"step_ms": 70.0 * 0.6**i} if i else {})
            for i in range(len(drops) + 1)
        ],
        "history": history,
        "events": [
            {"step": c["step"], "safety_drop": c["safety_drop"], "restored": restored}
            for c in history
            if c["safety_drop"] > 0.05
        ],
        "reverted_to_step": 300,
        "bit_depths_before": {name: [8.0] * n for name, n in KERNELS.items()},
        "bit_depths": {name: [0.0] * (n // 2) + [2.5] * (n - n // 2) for name, n in KERNELS.items()},
        "code_counts": {name: [[-2, 3], [-1, 40], [0, 60 * n], [1, 44]] for name, n in KERNELS.items()},
        **changes,
    }


def a_calm_row():
    """As little as there can be: no event, no reversion, one check, one kernel, all of it dead."""
    small = a_row([0.0], bit_depths={"head/kernel": [0.0] * 10}, code_counts={"head/kernel": [[0, 5760]]})
    del small["events"], small["reverted_to_step"]
    return small


def without(record, *keys):
    """A copy of the record in which the item at the end of the path ``keys`` is missing."""
    record = copy.deepcopy(record)
    place = record
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    return record


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]
