"""Records of the main job as small as they can be, and how others read what is written of them."""

import json


def row(test_accuracy=0.99, integer_bytes=12_345.0, **more):
    size = {"stored_bytes": 9_876, "integer_bytes": integer_bytes, "entropy_bytes": 1e4, "nominal_bits": 8e4}
    return {
        "test_accuracy": test_accuracy,
        "safety_accuracy": 0.9,
        "safety_drop_points": 2.5,
        "safe": True,
        "reverted_to_step": None,
        "seconds": 61.0,
        "size": {**size, "float32_bytes": 350_632},
        "dead_channels": 5,
        "events": [{"step": 3, "restored": {"a": 2, "b": 1}}, {"step": 9, "restored": {}}],
        **more,
    }


def record(seed=0, **more):
    float_row = {"test_accuracy": 0.98, "safety_accuracy": 0.95, "seconds": 10.0, "size": {"float32_bytes": 350_632}}
    return {"config": {"seed": seed}, "rows": {"float": float_row, "safe": row(**more)}}


def strict(text):
    """JSON as others read it: no NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)
