"""The demonstration files what is read from pictures only where it has an image archive, and says so."""

from __future__ import annotations

from pathlib import Path

from service.demo import FILES_IMAGES, _report, demonstration_settings
from service.settings import Settings


def test_with_an_archive_readings_are_filed_and_the_report_says_so(tmp_path: Path) -> None:
    bare = Settings(home=tmp_path, _env_file=None)
    assert demonstration_settings(bare).images == "off"
    with_pacs = bare.model_copy(update={"pacs_url": "http://127.0.0.1:8042/dicom-web"})
    assert demonstration_settings(with_pacs).images == "file"
    assert _report("http://x", [], files_images=True).message.endswith(FILES_IMAGES)
    assert FILES_IMAGES not in _report("http://x", [], files_images=False).message
