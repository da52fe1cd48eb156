"""The image contract of `slotcon_tf.images`, as far as it needs no TensorFlow.

What a file's pixels are, by one rule for training and for clients. `pixels` needs NumPy
only, the others Pillow; `slotcon_tf.images` adds TensorFlow's faster decoders of the same
pixels.
"""
