"""A pod's volumes: planned (plan.py, contents.py), made, kept up to date, mounted and taken away (volumes.py)."""

from .contents import Objects
from .errors import VolumeError
from .plan import plan_volumes, wanted
from .variables_file import value_in
from .volumes import Volumes

__all__ = ["Objects", "VolumeError", "Volumes", "plan_volumes", "value_in", "wanted"]
