"""The teacher's copy of the encoder, and which layers are frozen in both."""

import inspect

import keras


def twin(model):
    """A model of the same class and configuration, with weights of its own.

    keras.models.clone_model would turn a ResNet into a plain functional model, without
    its pyramid.

    Args:
        model: A Keras model; classes and functions of a user's script need not be
            registered.

    Raises:
        ValueError: If its configuration does not make such a model.
    """
    try:
        with keras.saving.custom_object_scope(_own_objects(model)):
            copy = type(model).from_config(model.get_config())
    except (
        AttributeError,
        KeyError,
        NotImplementedError,
        TypeError,
        ValueError,
    ) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _not_copied(model, lines[0][:300]) from error
    kinds = [[type(layer) for layer in m._flatten_layers()] for m in (model, copy)]
    shapes = [[tuple(v.shape) for v in m.variables] for m in (model, copy)]
    if kinds[0] != kinds[1] or shapes[0] != shapes[1]:
        raise _not_copied(model, "its configuration makes other layers")
    if set(map(id, model.variables)) & set(map(id, copy.variables)):
        raise _not_copied(model, "its configuration holds the layers themselves")
    for old, new in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        # Not every configuration holds it.
        is_input = isinstance(new, keras.layers.InputLayer)
        if not is_input and new.dtype_policy.name != old.dtype_policy.name:
            new.dtype_policy = old.dtype_policy
    if hasattr(model, "statistics"):
        copy.statistics = model.statistics
    return copy


def _not_copied(model, received):
    return ValueError(
        "A model must be one that Keras can copy from its configuration: the teacher "
        f"is a copy of the student. Received: {model.name!r}, a "
        f"{type(model).__name__}: {received}. Give its class a get_config with the "
        "constructor's arguments, or make it a functional keras.Model."
    )


def _own_objects(model):
    """Dict of name to what a user's script has defined and not registered."""
    nested = (
        keras.initializers.Initializer,
        keras.regularizers.Regularizer,
        keras.constraints.Constraint,
    )
    found = {}
    for layer in model._flatten_layers():
        for value in (layer, *vars(layer).values()):
            if inspect.isfunction(value):
                kind = value
            elif value is layer or isinstance(value, nested):
                kind = type(value)
            else:
                continue
            registered = keras.saving.get_registered_name(kind) != kind.__name__
            if not registered and kind.__module__.partition(".")[0] != "keras":
                found[kind.__name__] = kind
    return found


def copy_trainable(source, target):
    """Freezes the layers of one model that are frozen in another of the same layers."""
    pairs = zip(source._flatten_layers(), target._flatten_layers(), strict=True)
    for old, new in pairs:
        # From outside to inside: a layer's flag is also put on what it holds.
        new.trainable = old.trainable


def frozen_layers(part):
    """The frozen layers of a layer, itself included: lists of place and class.

    Names would not do: those that Keras gives differ from process to process.
    """
    layers = part._flatten_layers()
    return [[n, type(x).__name__] for n, x in enumerate(layers) if not x.trainable]


def freeze_layers(part, frozen):
    """Freezes the layers that `frozen_layers` has told, and no others.

    Raises:
        ValueError: If other layers are in these places.
    """
    layers = part._flatten_layers()
    for place, kind in frozen:
        found = type(layers[place]).__name__ if place < len(layers) else "nothing"
        if found != kind:
            raise ValueError(
                "Frozen layers must be found again in a saved model. Received: "
                f"{found} in place of the {kind} at {place} of {part.name!r}. Load it "
                "with the version of Keras that wrote it."
            )
    places = {place for place, _ in frozen}
    for number, layer in enumerate(layers):
        layer.trainable = number not in places


def parameters_of(part):
    """Ids of the variables that learn where nothing is frozen.

    Not moving statistics and random seeds. The flag `trainable` cannot tell: layers
    may be frozen, and the teacher's variables all are.
    """
    layers = part._flatten_layers()
    return {id(v) for layer in layers for v in layer._trainable_variables}
