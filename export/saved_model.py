"""Writes a trained model as a SavedModel for TF Serving.

    python -m export.saved_model --model=runs/photos --export_dir=served/slotcon

Into `<export_dir>/<next version>/`, built aside and renamed into place: a server that
polls the folder never sees half a model. With it come warm-up requests for every
signature and batch size, and, with --calibration_images, what the precision costs.
"""

from slotcon_tf.runs import ExportConfig, export
from slotcon_tf.runs.command import Command

main = Command("saved_model", ExportConfig, export, __doc__)

if __name__ == "__main__":
    main()
