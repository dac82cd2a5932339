"""A file becomes the right picture, or is refused with a reason: files of known values, value by value."""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import MPEG4HP41, RLELossless

from service.imaging.order import Order, unpack
from service.imaging.picture import Rendered, Spot
from service.imaging.refusal import Refused
from service.imaging.work import carry_out
from tests.unit.imaging import phantoms
from tests.unit.imaging.phantoms import code, item, items, pictured, steps, written
from tests.unit.texts import portables

SIDE = 16
"""Files of 16 × 16 are shown as they are: no scaling blurs what is compared."""


def read(made: FileDataset | bytes, **order: Any) -> tuple[Rendered, ...]:
    data = made if isinstance(made, bytes) else written(made)
    return unpack(carry_out(data, Order(**{"side": SIDE, **order}))).pictures


def measured(made: FileDataset, *frames: int) -> tuple[float, float] | None:
    return unpack(carry_out(written(made), Order("measure", frames=frames))).span


def pixels(made: FileDataset | bytes, **order: Any) -> NDArray[np.int_]:
    """Red, green and blue of the only picture."""
    (rendered,) = read(made, **order)
    return array_of(rendered)


def array_of(rendered: Rendered) -> NDArray[np.int_]:
    return np.asarray(Image.open(BytesIO(rendered.png))).astype(np.int_)


def grey(made: FileDataset, **order: Any) -> NDArray[np.int_]:
    found = pixels(made, **order)
    assert (found[..., 0] == found[..., 1]).all()
    assert (found[..., 0] == found[..., 2]).all()
    return found[..., 0]


def refusal(made: FileDataset | bytes, **order: Any) -> str:
    with pytest.raises(Refused) as refused:
        read(made, **order)
    return refused.value.reason


def near(found: NDArray[Any], wanted: NDArray[Any], within: float = 1.0) -> bool:
    return bool(np.abs(found.astype(float) - wanted.astype(float)).max() <= within)


def ct(low: int = -1000, high: int = 1000, **elements: Any) -> FileDataset:
    known = {"RescaleSlope": 1, "RescaleIntercept": -1024, **elements}
    return pictured(steps(low + 1024, high + 1024), phantoms.CT, "CT", **known)


def test_the_three_windows_of_a_ct_are_applied_to_hounsfield_units() -> None:
    hounsfield = steps(-1000, 1000).astype(float)
    wanted = [
        np.clip((hounsfield - low) / (high - low), 0, 1) * 255
        for low, high in ((-1024, 1024), (-135, 215), (0, 80))
    ]
    (rendered,) = read(ct())
    assert near(array_of(rendered), np.stack(wanted, axis=-1))
    assert rendered.window == "CT: −1024…1024, −135…215, 0…80 HU as red, green, blue"


def test_a_slope_changes_the_hounsfield_units() -> None:
    halved = pictured(
        steps(0, 2000), phantoms.CT, "CT", RescaleSlope="0.5", RescaleIntercept=-1000, RescaleType="HU"
    )
    assert near(pixels(halved)[..., 0], (steps(0, 2000) * 0.5 - 1000 + 1024) / 2048 * 255)


def test_a_ct_that_has_no_hounsfield_units_is_shown_in_grey() -> None:
    assert grey(ct(RescaleType="US")).shape == (SIDE, SIDE)
    plain = pictured(steps(0, 500), phantoms.CT, "CT")
    assert near(grey(plain), steps(0, 255))


def test_a_person_may_see_a_ct_in_one_window() -> None:
    hounsfield = steps(-1000, 1000).astype(float)
    wanted = np.clip((hounsfield - 39.5) / 399 + 0.5, 0, 1) * 255
    assert near(grey(ct(), window=(40.0, 400.0)), wanted)
    assert near(grey(ct(WindowCenter=[40, 500], WindowWidth=[400, 1]), as_model=False), wanted)
    assert refusal(ct(), window=(40.0, 0.0)) == "a window that cannot be used"


def test_monochrome_1_is_inverted_and_monochrome_2_is_not() -> None:
    window: dict[str, Any] = {"WindowCenter": 50, "WindowWidth": 101}
    light = grey(pictured(steps(0, 100, np.uint16), **window))
    dark = grey(pictured(steps(0, 100, np.uint16), PhotometricInterpretation="MONOCHROME1", **window))
    assert near(light, steps(0, 100) * 2.55, 2)
    assert (dark == 255 - light).all()


def test_the_modality_lut_comes_before_the_window() -> None:
    made = pictured(steps(0, 1000), RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=0, WindowWidth=1001)
    wanted = np.clip((steps(0, 1000) * 2.0 - 1000 + 0.5) / 1000 + 0.5, 0, 1) * 255
    assert near(grey(made), wanted)


def test_tables_of_modality_and_voi_are_followed_one_after_the_other() -> None:
    table = [1000 - 2 * place for place in range(256)]
    curve = [round(4095 * (place / 1000) ** 2) for place in range(1001)]
    made = pictured(
        steps(0, 255, np.uint8),
        ModalityLUTSequence=items(item(LUTDescriptor=[256, 0, 16], LUTData=table, ModalityLUTType="US")),
        VOILUTSequence=items(item(LUTDescriptor=[1001, 0, 12], LUTData=curve)),
        WindowCenter=1, WindowWidth=1,
    )  # fmt: skip
    made["ModalityLUTSequence"].value[0]["LUTDescriptor"].VR = "US"
    made["VOILUTSequence"].value[0]["LUTDescriptor"].VR = "US"
    for sequence in ("ModalityLUTSequence", "VOILUTSequence"):
        made[sequence].value[0]["LUTData"].VR = "US"
    found = (1000 - 2 * steps(0, 255, np.int32)) / 1000
    (rendered,) = read(made)
    assert rendered.window == "the file's table of grey values"
    assert near(array_of(rendered)[..., 0], found**2 * 255)


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_the_function_of_a_window_is_followed(function: str) -> None:
    x = steps(0, 1000).astype(float)
    wanted = {
        "LINEAR_EXACT": np.clip((x - 500) / 400 + 0.5, 0, 1) * 255,
        "SIGMOID": 255 / (1 + np.exp(-4 * (x - 500) / 400)),
    }[function]
    made = pictured(steps(0, 1000), WindowCenter=500, WindowWidth=400, VOILUTFunction=function)
    assert near(grey(made), wanted)


def test_without_a_window_the_whole_range_is_shown_and_padding_does_not_count() -> None:
    values = steps(100, 200)
    values[0] = -2000
    found = grey(pictured(values, PixelPaddingValue=-2000))
    assert (found[0] == 0).all()
    low = values[1:].min()
    assert near(found[1:], (values[1:] - low) / (200 - low) * 255)


def test_padding_is_black_also_where_low_is_white() -> None:
    values = steps(100, 200, np.uint16)
    values[0], values[1] = 3, 5
    made = pictured(
        values, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=3, PixelPaddingRangeLimit=5
    )
    found = grey(made)
    assert (found[:2] == 0).all()
    assert found[2, 0] == 255


def test_signed_values_keep_their_sign_in_fewer_bits_than_are_allocated() -> None:
    values = steps(-2048, 2047)
    stored = np.bitwise_and(values.astype(np.uint16), 0x0FFF)
    made = pictured(
        stored, BitsStored=12, HighBit=11, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096
    )
    assert near(grey(made), steps(0, 255))


def test_overlays_in_unused_bits_are_ignored() -> None:
    values = steps(0, 4095, np.uint16)
    marked = values | np.where(np.eye(16, dtype=bool), 0x8000, 0).astype(np.uint16)
    made = pictured(marked, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    assert near(grey(made), steps(0, 255))


def test_overlay_planes_are_not_drawn() -> None:
    made = pictured(steps(0, 255, np.uint8))
    plain = pixels(made)
    made.add_new(0x60000010, "US", 16)
    made.add_new(0x60000011, "US", 16)
    made.add_new(0x60000040, "CS", "G")
    made.add_new(0x60000050, "SS", [1, 1])
    made.add_new(0x60000100, "US", 1)
    made.add_new(0x60000102, "US", 0)
    made.add_new(0x60003000, "OW", b"\xff" * 32)
    assert (pixels(made) == plain).all()


def colours() -> NDArray[np.uint8]:
    red, green = np.meshgrid(np.arange(0, 256, 16), np.arange(0, 256, 16))
    return np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("planar", [0, 1])
def test_colours_by_pixel_and_by_plane_are_the_same(planar: int) -> None:
    made = pictured(colours(), phantoms.CAPTURE, "OT", PlanarConfiguration=planar)
    if planar:
        made.PixelData = colours().transpose(2, 0, 1).tobytes()
    assert (pixels(made) == colours()).all()


def test_ybr_becomes_rgb() -> None:
    made = pictured(
        convert_color_space(colours(), "RGB", "YBR_FULL"), phantoms.US, "US",
        PhotometricInterpretation="YBR_FULL",
    )  # fmt: skip
    assert near(pixels(made), colours(), 3)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_gives_its_colours(bits: int) -> None:
    made = pictured(steps(0, 255, np.uint8), phantoms.US, "US", PhotometricInterpretation="PALETTE COLOR")
    table = np.arange(256, dtype=np.uint16)
    for name, values in (("Red", table), ("Green", 255 - table), ("Blue", table // 2)):
        stored = (values * (257 if bits == 16 else 1)).astype(np.uint16 if bits == 16 else np.uint8)
        made.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, bits])
        made.add_new(f"{name}PaletteColorLookupTableData", "OW", stored.tobytes())
    index = steps(0, 255, np.int32)
    assert near(pixels(made), np.stack([index, 255 - index, index // 2], axis=-1))


def test_sixteen_bits_of_colour_are_scaled_and_not_cut() -> None:
    made = pictured(colours().astype(np.uint16) * 257, phantoms.CAPTURE, "OT")
    assert near(pixels(made), colours())


def test_rle_gives_what_was_stored() -> None:
    made = pictured(steps(0, 255, np.uint8))
    plain = pixels(made)
    made.compress(RLELossless)
    assert (pixels(made) == plain).all()


def test_frames_are_read_by_number_and_thinned_evenly() -> None:
    stack = np.stack([np.full((16, 16), place, np.uint8) for place in range(100)])
    made = pictured(stack, phantoms.US, "US", WindowCenter=50, WindowWidth=101)
    assert [rendered.frame for rendered in read(made, most=3)] == [1, 51, 100]
    (rendered,) = read(made, frames=(71,))
    assert near(array_of(rendered), np.full((16, 16, 3), 70 / 100 * 255), 2)
    assert refusal(made, frames=(101,)) == refusal(made, frames=(0,)) == "no such frame"


def test_an_enhanced_object_has_a_slope_and_a_window_for_each_frame() -> None:
    stack = np.stack([steps(0, 1000), steps(0, 1000)])
    made = pictured(stack, "1.2.840.10008.5.1.4.1.1.2.1", "CT")
    made.PerFrameFunctionalGroupsSequence = items(*(
        item(
            PixelValueTransformationSequence=items(
                item(RescaleSlope=slope, RescaleIntercept=-1000, RescaleType="HU")
            ),
            FrameVOILUTSequence=items(item(WindowCenter=center, WindowWidth=1000)),
        )
        for slope, center in ((1, -500), (2, 0))
    ))  # fmt: skip
    first, second = (array_of(rendered) for rendered in read(made))
    for found, slope in ((first, 1), (second, 2)):
        assert near(found[..., 0], np.clip((steps(0, 1000) * slope + 24) / 2048, 0, 1) * 255)
    first, second = (array_of(rendered) for rendered in read(made, as_model=False))
    for found, slope, center in ((first, 1, -500), (second, 2, 0)):
        wanted = np.clip((steps(0, 1000) * slope - 1000.0 - (center - 0.5)) / 999 + 0.5, 0, 1) * 255
        assert near(found[..., 0], wanted)


def test_an_mr_is_scaled_over_its_whole_volume() -> None:
    stack = np.stack([steps(0, 500), steps(500, 1000)])
    volume = pictured(stack, phantoms.MR, "MR")
    assert measured(volume, 1) == (0.0, 500.0)
    span = measured(volume, 1, 2)
    assert span == (0.0, 1000.0)
    first, second = (array_of(one) for one in read(volume, span=span))
    assert near(first[..., 0], steps(0, 500) / 1000 * 255)
    assert near(second[..., 0], steps(500, 1000) / 1000 * 255)
    alone = pictured(steps(0, 500), phantoms.MR, "MR", WindowCenter=1, WindowWidth=1)
    assert near(grey(alone), steps(0, 500) / 500 * 255)
    (within,) = read(alone, span=(0.0, 1000.0), over="2 of 9 slices")
    assert near(array_of(within)[..., 0], steps(0, 500) / 1000 * 255)
    assert within.window == "MR: 0…1000 over 2 of 9 slices"
    assert measured(pictured(steps(0, 500), phantoms.CT, "CT"), 1) is None  # its values have a unit


def test_the_aspect_is_kept_by_black_margins() -> None:
    wide = pictured(np.full((16, 64), 255, np.uint8))
    found = pixels(wide, side=64)
    assert (found[:24] == 0).all()
    assert (found[24:40] == 255).all()
    assert (found[40:] == 0).all()
    (rendered,) = read(wide, side=448)
    assert (rendered.rows, rendered.columns, rendered.side) == (16, 64, 448)
    assert Image.open(BytesIO(rendered.png)).size == (448, 448)


@pytest.mark.parametrize(
    "elements",
    [{"PixelSpacing": [2.0, 1.0]}, {"ImagerPixelSpacing": [0.2, 0.1]}, {"PixelAspectRatio": [2, 1]}],
)
def test_pixels_that_are_no_squares_are_not_shown_as_squares(elements: dict[str, Any]) -> None:
    found = pixels(pictured(np.full((16, 16), 255, np.uint8), **elements), side=32)
    assert (found[:, 8:24] == 255).all()
    assert (found[:, :8] == 0).all()


def test_a_mistaken_spacing_does_not_squash_a_picture() -> None:
    assert (pixels(pictured(np.full((16, 16), 255, np.uint8), PixelSpacing=[1000.0, 1.0])) == 255).all()


def test_the_picture_is_of_the_instance_that_was_asked_for() -> None:
    made = pictured(steps(0, 255, np.uint8))
    right = Spot(phantoms.STUDY, phantoms.SERIES, phantoms.INSTANCE)
    assert len(read(made, spot=right)) == 1
    for wrong in (Spot("9", right.series, right.instance), Spot("", "9", ""), Spot("", "", "9")):
        assert refusal(made, spot=wrong) == "another instance than the one that was asked for"


def test_pictures_with_text_in_them_are_refused_where_that_is_wanted() -> None:
    made = pictured(steps(0, 255, np.uint8), BurnedInAnnotation="YES")
    assert read(made)[0].burned_in
    assert refusal(made, refuse_burned_in=True) == "text may be burned into its pixels"
    assert not read(pictured(steps(0, 255, np.uint8)), refuse_burned_in=True)[0].burned_in


def test_what_is_no_picture_is_refused_by_its_name_also_with_pixels() -> None:
    for sop_class, name in (
        (phantoms.SEGMENTATION, "segmentation"), (phantoms.BASIC_REPORT, "structured report"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "radiotherapy object"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "encapsulated document"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "presentation state"),
    ):  # fmt: skip
        assert refusal(pictured(steps(0, 255, np.uint8), sop_class, "CT")) == f"no picture: {name}"


def test_pixels_that_are_missing_short_or_impossible_are_refused() -> None:
    made = pictured(steps(0, 255, np.uint8))
    made.PixelData = made.PixelData[:-20]
    assert refusal(made) == "its pixels cannot be decoded"
    assert refusal(phantoms.dataset(phantoms.DX, "DX", Rows=4, Columns=4)) == "without pixels"
    huge = pictured(steps(0, 255, np.uint8), Rows=60_000, Columns=60_000)
    assert refusal(huge) == "too many pixels"
    impossible: list[dict[str, Any]] = [
        {"Rows": 0}, {"SamplesPerPixel": 2}, {"BitsStored": 12, "HighBit": 20},
    ]  # fmt: skip
    for elements in impossible:
        assert refusal(pictured(steps(0, 4000, np.uint16), **elements))
    assert refusal(b"\x00" * 500) == "not a DICOM file"
    video = pictured(steps(0, 255, np.uint8))
    video.file_meta.TransferSyntaxUID = MPEG4HP41
    video["PixelData"].is_undefined_length = True
    video.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd"
    assert refusal(video) == "a video"


def photograph(size: tuple[int, int], kind: str = "JPEG", **saved: Any) -> bytes:
    picture = Image.new("RGB", size, "black")
    picture.paste("white", (0, 0, size[0], size[1] // 2))
    written_to = BytesIO()
    picture.save(written_to, kind, **saved)
    return written_to.getvalue()


def test_a_photograph_stands_upright_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: a quarter to the right makes it upright
    found = pixels(photograph((64, 64), exif=exif), side=64)
    assert found[32, 60].min() > 200
    assert found[32, 4].max() < 60
    (rendered,) = read(photograph((640, 320), exif=exif), side=64)
    assert (rendered.rows, rendered.columns, rendered.burned_in) == (640, 320, True)
    assert refusal(photograph((64, 64)), refuse_burned_in=True) == "text may be burned into its pixels"


def test_a_transparent_photograph_is_shown_on_white_and_sixteen_bits_are_scaled() -> None:
    clear = BytesIO()
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(clear, "PNG")
    assert (pixels(clear.getvalue()) == 255).all()
    deep = BytesIO()
    Image.fromarray(steps(0, 65535, np.uint16)).save(deep, "PNG")
    assert near(pixels(deep.getvalue())[..., 0], steps(0, 255))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that is said to be huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    rest = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + rest


def test_photographs_that_are_too_large_or_broken_are_refused() -> None:
    assert refusal(bomb(50_000, 50_000)) == refusal(bomb(10_000, 10_000)) == "too many pixels"
    assert refusal(bomb(100, 100)) == "its content is broken"
    for kind in ("JPEG", "PNG"):
        whole = photograph((300, 300), kind)
        assert refusal(whole[: len(whole) * 2 // 3]) == "its content is broken"


def test_pages_of_a_pdf_become_pictures() -> None:
    data = portables.of_lines("Chest X-ray", "No effusion")
    page, other = read(data, side=448)
    found = array_of(page)
    assert (found == 255).mean() > 0.5
    assert found.min() < 100
    assert (page.frame, other.frame, page.window) == (1, 2, "page as printed")
    assert [one.frame for one in read(data, frames=(2,))] == [2]
    assert refusal(data, frames=(3,)) == "no such page"
    assert refusal(data[:60]) == "a PDF that does not open"


def report(**elements: Any) -> FileDataset:
    tree = items(
        item(
            ValueType="CONTAINER", ConceptNameCodeSequence=code("Findings"),
            ContentSequence=items(
                item(
                    ValueType="TEXT", ConceptNameCodeSequence=code("Finding"),
                    TextValue="No effusion.\r\nHeart normal.",
                ),
                item(
                    ValueType="NUM", ConceptNameCodeSequence=code("Diameter"),
                    MeasuredValueSequence=items(
                        item(NumericValue="3.50", MeasurementUnitsCodeSequence=code("centimetre", "cm"))
                    ),
                ),
                item(ValueType="CODE", ConceptNameCodeSequence=code("Side"), ConceptCodeSequence=code("L")),
                item(ValueType="IMAGE", ConceptNameCodeSequence=code("Source")),
            ),
        ),
        item(ValueType="PNAME", ConceptNameCodeSequence=code("Observer"), PersonName="Roe^Ann"),
    )  # fmt: skip
    return phantoms.dataset(
        phantoms.BASIC_REPORT, "SR", ConceptNameCodeSequence=code("Chest X-ray report"), ContentSequence=tree,
        **elements,
    )  # fmt: skip


def text_of(made: FileDataset) -> str:
    return unpack(carry_out(written(made), Order("report"))).text


def test_a_structured_report_is_told_line_by_line() -> None:
    assert text_of(report(VerificationFlag="VERIFIED", CompletionFlag="COMPLETE")).split("\n") == [
        "Chest X-ray report", "Findings", "Finding: No effusion. Heart normal.", "Diameter: 3.50 cm",
        "Side: L", "Observer: Roe Ann",
    ]  # fmt: skip


def test_a_report_that_nobody_has_verified_says_so() -> None:
    lines = text_of(report(VerificationFlag="UNVERIFIED", CompletionFlag="PARTIAL")).split("\n")
    assert lines[1:3] == ["Not verified.", "Partial report."]


def test_key_images_are_told_by_their_title_and_number() -> None:
    made = phantoms.dataset(
        phantoms.KEY_IMAGES, "KO", ConceptNameCodeSequence=code("For Referring Provider"),
        ContentSequence=items(*(item(ValueType="IMAGE") for _ in range(3))),
    )  # fmt: skip
    assert text_of(made).split("\n") == ["For Referring Provider", "Images marked: 3"]


def test_reports_without_end_and_pictures_are_refused() -> None:
    inner = item(ValueType="TEXT", TextValue="x")
    for _ in range(60):
        inner = item(ValueType="CONTAINER", ContentSequence=items(inner))
    made = phantoms.dataset(phantoms.BASIC_REPORT, "SR", ContentSequence=items(inner))
    for bad in (made, pictured(steps(0, 255, np.uint8))):
        with pytest.raises(Refused):
            text_of(bad)
