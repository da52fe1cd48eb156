"""Weights from other libraries, and for them.

    python -m trainers.convert --from=slotcon_torch ckpt.pth --output=slotcon.keras
    python -m trainers.convert runs/photos --to=detectron2 --output=d2/slotcon.pkl

The input (--model, or without a name) is a file of torch.save or safetensors, a .keras
file, a run's work directory or one of its checkpoints, or a published model's name. No
torch is needed, and nothing that a file names is run. The encoder is found under any
prefix; of a teacher and a student the teacher is taken, and --prefix chooses among
others. Every tensor is reported; one that is not matched on either side is an error.
"""

from slotcon_tf.runs import ConvertConfig, convert
from slotcon_tf.runs.command import Command

main = Command("convert", ConvertConfig, convert, __doc__, positionals=["model"])

if __name__ == "__main__":
    main()
