"""The loops that train: Keras's own, and a plain one for several hosts."""

import keras
import tensorflow as tf

from slotcon_tf.callbacks import ContinueMetrics


def train(model, make_dataset, *, steps_per_epoch, epochs, callbacks, verbose, plain):
    """Trains from the model's step on to the end, in the middle of an epoch too.

    Args:
        model: A compiled `SlotCon`.
        make_dataset: Function of a step that returns the dataset from there on.
        steps_per_epoch, epochs: Of the whole run.
        callbacks: List of Keras callbacks.
        verbose: As in `fit`.
        plain: Whether `plain_loop` trains in place of `fit`.
    """
    loop = plain_loop if plain else keras_fit
    epoch, offset = divmod(int(model.step.numpy()), steps_per_epoch)
    options = {"verbose": verbose}
    if offset:
        # The rest of the epoch is a stretch of its own, since `fit` knows whole ones.
        loop(
            model,
            make_dataset(epoch * steps_per_epoch + offset),
            initial_epoch=epoch,
            epochs=epoch + 1,
            steps_per_epoch=steps_per_epoch - offset,
            callbacks=[ContinueMetrics(model), *callbacks],
            **options,
        )
        epoch += 1
    if epoch < epochs:
        loop(
            model,
            make_dataset(epoch * steps_per_epoch),
            initial_epoch=epoch,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            callbacks=callbacks,
            **options,
        )


def keras_fit(model, dataset, **options):
    model.fit(dataset, shuffle=False, **options)


def plain_loop(
    model, dataset, *, initial_epoch, epochs, steps_per_epoch, callbacks, verbose
):
    """`fit` in its essence, with the model's own step and Keras's callbacks.

    For MultiWorkerMirroredStrategy, under which the `fit` of Keras 3.15 fails at the
    first step: it averages the step's logs along their first axis, and logs are
    scalars, as those of Keras's own step are.
    """
    strategy = model.distribute_strategy

    @tf.function
    def step(batch):
        return strategy.run(model.train_step, args=(batch,))

    calls = keras.callbacks.CallbackList(
        callbacks,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=epochs,
        steps=steps_per_epoch,
        model=model,
    )
    model.stop_training = False
    calls.on_train_begin()
    batches = iter(dataset)
    logs = {}
    for epoch in range(initial_epoch, epochs):
        model.reset_metrics()
        calls.on_epoch_begin(epoch)
        for number in range(steps_per_epoch):
            calls.on_train_batch_begin(number)
            found = step(next(batches))
            # Reduced over replicas in the step: each of them knows the same.
            logs = {
                name: float(strategy.experimental_local_results(value)[0])
                for name, value in found.items()
            }
            calls.on_train_batch_end(number, logs)
        logs = dict(logs)
        calls.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    calls.on_train_end(logs)
