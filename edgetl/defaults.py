"""The defaults of every command and function, in one place."""

EPOCHS = 10
BATCH_SIZE = 32
INIT = "auto"
DECODE = "scaled"  # JPEGs at a half, a quarter or an eighth of their size, where that is large enough
INIT_BATCH = 256
RATE = "auto"
SCHEDULE = "auto"
VIEWS = 4
REFIT_BELOW = 1000  # samples; with more, those that validate are missed less and training again costs more
SEED = 0
VAL_FRACTION = 0.2
MAX_LENGTH = 128
TOP = 3

OPSET = 18  # the first with an antialiasing Resize; onnxruntime reads it since 1.14
IR_VERSION = 8  # the one that came with opset 18; onnxruntime 1.19 stops at 10

WEIGHT_DECAY = 0.01  # torch.optim.AdamW's

MAX_PIXELS = 100_000_000  # a picture that declares more is refused before memory is taken
MAX_FILE_BYTES = 1_000_000_000  # so is any file that is one sample
MAX_ARRAY_BYTES = 2_000_000_000  # and an archive of arrays
MAX_AUDIO_SAMPLES = 100_000_000  # and a recording: 35 minutes at 48 kHz
SILENCE_DB = -60.0  # of full scale: recordings, and windows of them, whose deviation is smaller are silent
PROOF_SAMPLES = 256  # training samples that stand in for validation data when deploy() compares logits
CALIBRATION_SAMPLES = 128  # from which quantisation takes the ranges of activations
CORRECTION_SAMPLES = 16  # over which quantisation corrects biases; 8 and 32 gave the same error
COMPARISON_SAMPLES = 16  # by which it chooses
MAX_DROP = 1.0  # points of the leading figure that a deployed file may lose against the trained network
BENCHMARK_SECONDS = 3.0
