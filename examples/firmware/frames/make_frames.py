"""Camera frames of 160x120 RGB888 pixels from photographs of tests/fixtures/demo (CC BY 2.0, see its
ATTRIBUTION.csv): the middle of each, resized with Pillow. `python3 make_frames.py` beside this file."""

from pathlib import Path

from PIL import Image, ImageOps

HERE = Path(__file__).parent
PHOTOS = HERE / "../../../tests/fixtures/demo/photos"

for name, photo in [
    ("tennis", "person/000000000885.jpg"),
    ("bears", "no_person/000000000285.jpg"),
]:
    frame = ImageOps.fit(Image.open(PHOTOS / photo).convert("RGB"), (160, 120), Image.BICUBIC)
    (HERE / f"{name}.rgb").write_bytes(frame.tobytes())
