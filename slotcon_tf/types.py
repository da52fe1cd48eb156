"""Names for what Keras and TensorFlow leave untyped."""

from __future__ import annotations

from typing import Any, TypeAlias

# A tensor of TensorFlow, or what keras.ops makes one of: arrays, variables, numbers.
# Any, since their operators are made at run time, and no type checker sees them.
Tensor: TypeAlias = Any
Variable: TypeAlias = Any  # keras.Variable, tf.Variable
Shape: TypeAlias = tuple[int | None, ...]
Batch: TypeAlias = dict[str, Tensor]  # two views of every image, and where they meet
