"""From what lies on the disk to labelled samples, seeded splits and pixels."""

from edgetl.data.folder import Dataset, Sample, Split, open_folder, split_stratified
from edgetl.data.images import content_digest, read_rgb

__all__ = ["Dataset", "Sample", "Split", "content_digest", "open_folder", "read_rgb", "split_stratified"]
