"""A fit whose safety accuracies are scripted, for the tests of restoration and contract."""

import keras
import numpy as np
import toy_problem as toy

from scc_tf.callbacks import KernelRestoration, SafetyMonitor
from scc_tf.optimizer_state import optimizer_slots


class AtStep(keras.callbacks.Callback):
    """Does something to the model once, after a given step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            self.action(self.model)


def kill(channels, name="hidden"):
    def action(model):
        bits = model.get_layer(name).bit_depth
        bits.assign(np.where(np.isin(np.arange(bits.shape[0]), channels), 0.0, bits))

    return action


class Fit:
    """What fit does to the two callbacks, with scripted safety accuracies; ``step`` is one training step."""

    def __init__(self, accuracy=1.0, model=None, momentum=True, every=1, **settings):
        self.model = model or toy.compressed(
            optimizer=keras.optimizers.Adam(0.01), format_optimizer=keras.optimizers.SGD(0.1, momentum=0.9)
        )
        if momentum:
            for optimizer in (self.model.optimizer, self.model.format_optimizer):
                for variable in optimizer._trainable_variables:
                    for slot in optimizer_slots(optimizer, variable):
                        slot.assign(np.ones(slot.shape))
        self.monitor = SafetyMonitor(toy.safety_set(), every=every, reference_accuracy=accuracy)
        self.monitor.safety_accuracy = lambda: self.accuracy
        self.restoration = KernelRestoration(self.monitor, **settings)
        self.accuracy = accuracy
        for callback in (self.monitor, self.restoration):
            callback.set_model(self.model)
        self.each("on_train_begin")

    def each(self, method, *arguments):
        for callback in (self.monitor, self.restoration):
            getattr(callback, method)(*arguments)

    def step(self, accuracy):
        self.accuracy = accuracy
        self.model.optimizer.iterations.assign_add(1)
        logs = {}
        self.each("on_train_batch_end", 0, logs)
        return logs

    def end(self):
        self.each("on_train_end")

    @property
    def event_steps(self):
        return [event["step"] for event in self.restoration.events]
