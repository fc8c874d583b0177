"""TFLite files that several tests share: turning Keras into TFLite takes most of the time of an export."""

from unittest import mock

import pytest
from tflite_files import inputs

from scc_tf.export import export_tflite
from scc_tf.export.tflite import exporter


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """``exported(net, *args, **arguments) -> (model, path, report)`` of ``net(*args)``, which no test changes."""
    folder, models, converted, files = tmp_path_factory.mktemp("tflite"), {}, {}, {}

    def float_bytes(model, convert=exporter.float_bytes):
        if id(model) not in converted:
            converted[id(model)] = convert(model)
        return converted[id(model)]

    def export(net, *args, **arguments):
        if (net, args) not in models:
            models[net, args] = net(*args)
        key = (net, args, *arguments.items())
        if key not in files:
            path, model = folder / f"{len(files)}.tflite", models[net, args]
            data = {"representative_data": inputs(model)} if arguments.get("compute") == "int8" else {}
            with mock.patch.object(exporter, "float_bytes", float_bytes):
                files[key] = model, path, export_tflite(model, path, **arguments, **data)
        return files[key]

    return export
