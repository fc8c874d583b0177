"""What a figure reads from a record, and clear words where it is not there."""

import numpy as np

__all__ = ["fields", "numbers"]


def fields(record, *keys):
    """``record[key]`` for each key; a ValueError that names those that are missing."""
    if not isinstance(record, dict):
        raise ValueError(f"Expected a record (dict). Received: {type(record).__name__}")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ValueError(f"Expected a record with {', '.join(keys)}. Received: none of {', '.join(missing)}")
    return [record[key] for key in keys]


def numbers(records, *keys):
    """One float array per key, over the records; a ValueError where there are none or one is not finite."""
    if not records:
        raise ValueError(f"Expected records with {', '.join(keys)}. Received: none")
    table = np.array([fields(record, *keys) for record in records], float).T
    for key, values in zip(keys, table, strict=True):
        if not np.isfinite(values).all():
            raise ValueError(f"Expected finite numbers. Received: {key}={values}")
    return table
