"""Print the logits of a deployed model for the pictures below a folder, as JSON; without edgetl."""

import json
import platform
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
folder = Path(sys.argv[2])
logits = {}
for file in sorted(folder.glob("*/*.png")):
    (values,) = session.run(["logits"], {"image": np.asarray(Image.open(file).convert("RGB"))})
    logits[str(file.relative_to(folder))] = values.tolist()
print(json.dumps({"machine": platform.machine(), "logits": logits}))
