"""Invented landscapes: what the network is trained on, and the scene of the demo.

``fields`` draws random shapes, ``spectra`` draws materials, ``background`` mixes both into a scene
without anomalies and ``scene`` plants anomalies whose place is known. numpy and scipy only.
"""

from uniadrs_scale.synthetic.background import background
from uniadrs_scale.synthetic.scene import PlantedTarget, SyntheticScene, demo_scene

__all__ = ["PlantedTarget", "SyntheticScene", "background", "demo_scene"]
