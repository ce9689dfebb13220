"""What can be wrong with an input, as exceptions a caller can act on.

Every message says what was met, where, which rule it breaks and what to do. Each class is also a
``ValueError`` or an ``OSError``, so that ``except ValueError`` in a user's script keeps working.
"""

from uniadrs_scale.redaction import redact


class UniadrsScaleError(Exception):
    """Base of everything this library raises on purpose.

    Messages quote what libraries say, and these quote URLs: passwords and signatures are left out.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class SceneError(UniadrsScaleError, ValueError):
    """The scene cannot be read, or its parts do not fit together."""


class PlanError(UniadrsScaleError, ValueError):
    """The requested tiles, chunks or memory contradict each other or the scene."""


class WeightsError(UniadrsScaleError, ValueError):
    """The weights file is missing, corrupt or made for another network."""


class ClusterError(UniadrsScaleError, OSError):
    """The Dask cluster cannot do the work: no worker is left, or one has other versions."""


class StoreError(UniadrsScaleError, OSError):
    """The output cannot be written, or belongs to another run."""


class ArchiveError(UniadrsScaleError, ValueError):
    """The description of an archive, or its source, cannot be used."""


class BusyError(UniadrsScaleError, OSError):
    """Another sweep writes to this sink."""
