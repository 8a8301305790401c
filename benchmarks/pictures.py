"""Crops of photographs: those of `calibration/photos.toml` and, where the packages are there, 21 others.

The eight photographs that ship calibrate, three judge; of the 20 pictures of ImageNet in foolbox (MIT) every second one
is added to either side, and imgaug's quokka (MIT) to those that judge. Three photographs cannot tell 95 % of the same
class from 85 %: crops of one of them are right or wrong together.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from hard import MissingSource, Sources
from processes import ROOT

from toolchain.samples import SampleSet, load_samples

SHIPPED = ROOT / "calibration" / "photos.toml"
MORE = ("foolbox/data/imagenet_*.jpg", "imgaug/quokka.jpg")


def pictures(sources: Sources, folder: Path, calibration_count: int, judging_count: int) -> tuple[SampleSet, str]:
    """The set, and how many photographs are behind each part; the shipped ones alone where no others are found."""
    source = tomllib.loads(SHIPPED.read_text())["source"]
    calibrate, judge = list(source["calibration_files"]), list(source["judging_files"])
    try:
        first = sources.need_weights(MORE[0])
        labelled = sorted(str(path) for path in first.parent.glob("imagenet_*.jpg"))
        quokka = str(sources.need_weights(MORE[1]))
        calibrate, judge = calibrate + labelled[::2], judge + labelled[1::2] + [quokka]
    except MissingSource:
        pass
    text = SHIPPED.read_text()
    for key, files in (("calibration_files", calibrate), ("judging_files", judge)):
        start = text.index(f"{key} = [")
        listed = "".join(f'    "{file}",\n' for file in files)
        text = f"{text[:start]}{key} = [\n{listed}{text[text.index(']', start) :]}"
    path = folder / "pictures.toml"
    path.write_text(text)
    counts = f"{len(calibrate)} photographs calibrate, {len(judge)} others judge"
    return load_samples(path, calibration_count=calibration_count, judging_count=judging_count), counts
