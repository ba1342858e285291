"""Write the demo's pictures below the directory given."""

import sys
from pathlib import Path

from edgetl.demo.digits import write_pictures

write_pictures(Path(sys.argv[1]))
