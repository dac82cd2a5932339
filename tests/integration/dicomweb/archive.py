"""A PACS on a loopback socket that fails on purpose, and small DICOM files for it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.integration.connectors.fault_server import FaultServer, Reply

BOUNDARY = "b0undary"
STUDY, SERIES, OTHER_SERIES = "1.2.826.1", "1.2.826.1.1", "1.2.826.1.2"
JSON = "application/dicom+json"
PARTS = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def instance_uid(number: int, series: str = SERIES) -> str:
    """The UID of an instance by its number."""
    return f"{series}.{number}"


def dicom_file(number: int = 1, **elements: Any) -> bytes:
    """A CT slice of four pixels."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, instance_uid(number)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = STUDY, SERIES, "CT"
    dataset.PatientID, dataset.PatientBirthDate, dataset.InstanceNumber = "M1", "19510504", number
    dataset.Rows = dataset.Columns = 2
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = b"\0\0" * 4
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    target = io.BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def part(body: bytes, content_type: str = "application/dicom") -> bytes:
    """One part with the delimiter before it, without its end."""
    return f"\r\n--{BOUNDARY}\r\nContent-Type: {content_type}\r\n\r\n".encode() + body


def multipart(*bodies: bytes, content_type: str = "application/dicom") -> bytes:
    """A whole answer of parts."""
    return b"".join(part(one, content_type) for one in bodies) + f"\r\n--{BOUNDARY}--\r\n".encode()


def element(vr: str, *values: Any) -> dict[str, Any]:
    """One attribute in DICOM JSON."""
    return {"vr": vr, "Value": list(values)}


def metadata(number: int, series: str = SERIES, study: str = STUDY, **more: Any) -> dict[str, Any]:
    """What a PACS says of one slice, a bulky private value and its pixels' address included."""
    return {
        "00080016": element("UI", CTImageStorage), "00080018": element("UI", instance_uid(number, series)),
        "0020000D": element("UI", study), "0020000E": element("UI", series),
        "00080060": element("CS", "CT"), "00200013": element("IS", number),
        "00200032": element("DS", 0, 0, number * 1.25), "00100020": element("LO", "M1"),
        "00091010": {"vr": "UN", "InlineBinary": "QUJD" * 200},
        "7FE00010": {"vr": "OW", "BulkDataURI": "https://elsewhere.example/bulk"}, **more,
    }  # fmt: skip


def series_row(series: str, size: int | None = None) -> dict[str, Any]:
    """A row of a search for series."""
    row = {"0020000D": element("UI", STUDY), "0020000E": element("UI", series)}
    return row if size is None else {**row, "00201209": element("IS", size)}


class Archive(FaultServer):
    """A PACS whose DICOMweb base is `…/dicom-web`; what it is not taught is 404."""

    @property
    def dicomweb_url(self) -> str:
        """The DICOMweb base URL."""
        return f"{self.root_url}/dicom-web"

    def on_path(self, path: str, *answers: Any) -> None:
        """Answer a path below the base."""
        self.on("GET", f"/dicom-web/{path}", *answers)

    def on_instance(self, *answers: Any, number: int = 1) -> None:
        """Answer one instance."""
        path = f"studies/{STUDY}/series/{SERIES}/instances/{instance_uid(number)}"
        self.on_path(path, *answers)

    def on_series(self, series: str, *answers: Any) -> None:
        """Answer the metadata of a series."""
        self.on_path(f"studies/{STUDY}/series/{series}/metadata", *answers)

    def on_search(self, *rows: dict[str, Any]) -> None:
        """Answer the search for the study's series."""
        self.on_path(f"studies/{STUDY}/series", items(rows))


def items(rows: Sequence[dict[str, Any]]) -> Reply:
    """DICOM JSON."""
    return Reply(json=list(rows), content_type=JSON)


def parts(*bodies: bytes, **more: Any) -> Reply:
    """An answer of parts."""
    return Reply(body=multipart(*bodies), content_type=PARTS, **more)
