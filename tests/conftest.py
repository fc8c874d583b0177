import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest


@pytest.fixture(autouse=True)
def _fixed_seeds_and_a_fresh_name_space():
    keras.utils.set_random_seed(0)
    keras.utils.clear_session(free_memory=False)
