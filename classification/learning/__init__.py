"""Training: one flat loop and the leaf files it is made of."""

import os

# OpenMP threads that wait for work by spinning take the cores from the threads that load images:
# on two cores that costs a third of the speed. It has to be said before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
