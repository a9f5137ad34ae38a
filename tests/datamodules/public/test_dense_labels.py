"""Readers of datasets with masks and boxes, on real files and forged copies."""

import re
import shutil
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.core.errors import DatasetNotFoundError, LayoutError
from datamodules.core.notes import collecting
from datamodules.formats.annotations import fill_polygon
from datamodules.formats.aperio import outlines_xml, read_outlines
from datamodules.formats.images import read_ids, read_image, read_mask, write_image
from datamodules.prepare import prepare
from datamodules.synthetic.scene import slides
from tests.support.readers import assert_refused, darkness, dataset, prepared

# ---- MoNuSeg ------------------------------------------------------------------------------


def test_monuseg_outlines_land_on_nuclei(official):
    module = official("monuseg")
    for record in module.records(module.root):
        density = darkness(read_image(record.image))
        inside = record.targets["nuclei"]() == 1
        assert density[inside].mean() > 1.4 * density[~inside].mean(), record.source
        # Shifted or transposed outlines fit the image worse.
        assert density[inside].mean() > 1.2 * density[inside.T].mean(), record.source
        shifted = np.roll(inside, (12, -12), (0, 1))
        assert density[inside].mean() > 1.1 * density[shifted].mean(), record.source


def test_monuseg_has_the_official_split_and_patients(official):
    module = official("monuseg")
    records = list(module.records(module.root))
    assert Counter(record.split for record in records) == {"train": 4, "test": 3}
    assert {len(record.group) for record in records} == {12}
    assert {record.mpp for record in records} == {0.252, 0.2468, 0.2485, 0.2462}


def test_monuseg_boxes_and_mask_agree(official):
    module = official("monuseg")
    record = next(module.records(module.root))
    mask, boxes = record.targets["nuclei"](), record.targets["nuclei_detection"]()
    xml = module.root / record.source.replace("Tissue Images", "Annotations").replace("tif", "xml")
    assert len(boxes) == len(read_outlines(module.root, xml, mask.shape))
    x, y = ((boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2).astype(int).T
    assert mask[y, x].mean() > 0.97
    covered = np.zeros_like(mask)
    for x1, y1, x2, y2 in boxes.xyxy.round().astype(int):
        covered[max(0, y1 - 1) : y2 + 1, max(0, x1 - 1) : x2 + 1] = 1
    assert (covered[mask == 1] == 1).all()


def test_monuseg_masks_keep_the_area_of_the_outlines(official):
    module = official("monuseg")
    areas = filled = 0.0
    for xml in sorted(module.root.rglob("*.xml"))[:3]:
        for line in (one.points for one in read_outlines(module.root, xml, (1000, 1000))[:150]):
            if line.min() > 0 and line.max() < 1000:
                x, y = line.T
                areas += abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
                mask = np.zeros((1000, 1000), np.uint8)
                fill_polygon(mask, line, 1)
                filled += mask.sum()
    assert filled == pytest.approx(areas, rel=0.002)  # cv2.fillPoly gives 10 % more


def test_monuseg_ignores_what_macos_leaves_beside_its_files(forged_copy):
    module = forged_copy("monuseg")
    plain = [record.source for record in module.records(module.root)]
    for path in [*module.root.rglob("*.tif"), *module.root.rglob("*.xml")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert [record.source for record in module.records(module.root)] == plain


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_a_pixel_belongs_to_an_outline_if_its_centre_lies_within(seed):
    rng = np.random.default_rng(seed)
    outline = rng.uniform(-10, 40, (rng.integers(3, 9), 2))
    mask = np.zeros((24, 31), np.uint8)
    fill_polygon(mask, outline, 5)
    centres = np.stack(np.meshgrid(np.arange(31) + 0.5, np.arange(24) + 0.5), axis=2)
    inside = np.zeros((24, 31), bool)
    for (x1, y1), (x2, y2) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        crosses = (y1 <= centres[..., 1]) != (y2 <= centres[..., 1])
        at = x1 + (centres[..., 1] - y1) * (x2 - x1) / (y2 - y1)
        inside ^= crosses & (at <= centres[..., 0])
    np.testing.assert_array_equal(mask, inside * 5)


def test_the_synthetic_outlines_of_monuseg_give_back_the_nuclei_that_were_drawn():
    slide = next(slides(np.random.default_rng(0), 1, ["breast"], 0.25, each=1))[2]
    drawn = slide.field(300, malignancy=0.5)
    ids = range(1, drawn.nuclei.max() + 1)
    xml = ElementTree.fromstring(outlines_xml(drawn.nuclei, 0.25, {"": ids}))
    mask = np.zeros((300, 300), np.uint8)
    for region in xml.iter("Region"):
        line = [(float(v.get("X")), float(v.get("Y"))) for v in region.iter("Vertex")]
        fill_polygon(mask, np.array(line), 1)
    assert (mask != (drawn.nuclei > 0)).mean() < 0.001


def test_monuseg_tiles_at_native_resolution_equal_the_file(official):
    module = official("monuseg", target_mpp=0.0)
    store = prepared(module)
    assert len(store) == 7 * 16
    first = read_image(module.root / store.source(0))
    np.testing.assert_array_equal(store.images([0])[0], first[:256, :256])
    np.testing.assert_array_equal(store.images([15])[0], first[-256:, -256:])
    record = next(module.records(module.root))
    mask = record.targets["nuclei"]()
    np.testing.assert_array_equal(store.masks("nuclei", [15])[0], mask[-256:, -256:])


def test_monuseg_nuclei_that_reach_out_of_the_image_are_clipped(forged, tmp_path):
    module = dataset("monuseg", forged("monuseg"), tmp_path)
    record = next(module.records(module.root))
    xml = module.root / record.source.replace("Tissue Images", "Annotations").replace("tif", "xml")
    lines = read_outlines(module.root, xml, (1000, 1000))
    assert min(line.points.min() for line in lines) < 0
    assert record.targets["nuclei_detection"]().xyxy.min() == 0


def test_monuseg_refuses_half_a_pair_and_a_broken_annotation(forged_copy):
    module = forged_copy("monuseg")
    xml = sorted((module.root / "MoNuSeg 2018 Training Data/Annotations").iterdir())[0]
    text = xml.read_text()
    xml.write_text(text[:3000])
    assert_refused(module, LayoutError, xml.name, "XML")
    for mpp, words in (("0,252", "comma"), ("nan", "not a number"), ("25", "published")):
        xml.write_text(re.sub(r'MicronsPerPixel="[^"]*"', f'MicronsPerPixel="{mpp}"', text))
        assert_refused(module, LayoutError, xml.name, "MicronsPerPixel", words)
    xml.write_text(re.sub(r' X="[^"]*"', ' X="1,5"', text, count=1))
    assert_refused(module, LayoutError, xml.name, "Region 1", "comma")
    layer = '<Annotation Id="2"><Regions><Region Id="1"/></Regions></Annotation></Annotations>'
    xml.write_text(text.replace("</Annotations>", layer))
    assert_refused(module, LayoutError, xml.name, "2 annotation layers")
    entity = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    xml.write_text(entity + text)
    assert_refused(module, LayoutError, xml.name, "document type")
    xml.unlink()
    assert_refused(
        module,
        LayoutError,
        xml.stem + ".tif",
        f"Annotations/{xml.name}",
    )
    xml.write_text(text)
    (xml.parent.parent / "Tissue Images" / f"{xml.stem}.tif").unlink()
    assert_refused(module, DatasetNotFoundError, xml.name, "missing")


def test_monuseg_published_oddities_are_counted_and_cost_one_object_at_most(official):
    module = official("monuseg", "monuseg_quirks", target_mpp=0.0)
    with collecting() as notes:
        store = prepared(module)
    assert len(store) == 2 * 16
    assert notes.counts == {}  # they are kept with the store
    line = prepare(module).notes.line()
    assert "outline without area: 1" in line
    assert "no MicronsPerPixel; taken as 0.25: 1" in line
    with collecting():
        records = {record.source[-27:-4]: record for record in module.records(module.root)}
        assert {r.mpp for r in records.values()} == {0.2468, 0.25}
        boxes = [len(r.targets["nuclei_detection"]()) for r in records.values()]
    assert boxes == [329 - 1, 363]


def test_monuseg_holes_are_cut_out_and_a_namespace_changes_nothing(forged_copy):
    module = forged_copy("monuseg")
    record = next(module.records(module.root))
    before, boxes = record.targets["nuclei"](), record.targets["nuclei_detection"]()
    x1, y1, x2, y2 = boxes.xyxy[(boxes.xyxy[:, 0] > 100).argmax()].astype(int)
    xml = module.root / record.source.replace("Tissue Images", "Annotations").replace("tif", "xml")
    corners = ((x1 + 3, y1 + 3), (x2 - 3, y1 + 3), (x2 - 3, y2 - 3), (x1 + 3, y2 - 3))
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    hole = f'<Region Id="h" NegativeROA="1"><Vertices>{vertices}</Vertices></Region></Regions>'
    text = xml.read_text().replace("</Regions>", hole)
    xml.write_text(text.replace("<Annotations ", '<Annotations xmlns="http://aperio.example" '))
    after = record.targets["nuclei"]()
    assert before[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].any()
    assert not after[y1 + 3 : y2 - 3, x1 + 3 : x2 - 3].any()
    outside = np.ones_like(after, bool)
    outside[y1 : y2 + 1, x1 : x2 + 1] = False
    np.testing.assert_array_equal(after[outside], before[outside])
    np.testing.assert_array_equal(record.targets["nuclei_detection"]().xyxy, boxes.xyxy)


def test_monuseg_an_outline_of_the_field_is_no_nucleus(forged_copy):
    module = forged_copy("monuseg")
    record = next(module.records(module.root))
    before = record.targets["nuclei"]()
    xml = module.root / record.source.replace("Tissue Images", "Annotations").replace("tif", "xml")
    corners = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ((0, 0), (1000, 0), (1000, 1000)))
    field = f'<Region Id="f"><Vertices>{corners}</Vertices></Region></Regions>'
    xml.write_text(xml.read_text().replace("</Regions>", field))
    with collecting() as notes:
        np.testing.assert_array_equal(record.targets["nuclei"](), before)
    assert notes.counts == {("skipped", "outline as large as the field"): 1}


# ---- DSB 2018 -----------------------------------------------------------------------------


def test_dsb2018_masks_land_on_nuclei(official):
    module = official("dsb2018")
    records = list(module.records(module.root))
    assert len(records) == 99
    better = 0
    for record in records[::4]:
        density, nuclei = darkness(read_image(record.image)), record.targets["nuclei"]() == 1
        better += density[nuclei].mean() > density[~nuclei].mean()
    assert better == len(records[::4])


def test_dsb2018_mask_is_the_union_of_all_nuclei(official):
    module = official("dsb2018")
    record = next(module.records(module.root))
    files = sorted((record.image.parent.parent / "masks").iterdir())
    expected = np.any([read_mask(path) == 255 for path in files], axis=0)
    np.testing.assert_array_equal(record.targets["nuclei"](), expected)


def test_dsb2018_leaves_fluorescence_out(forged, tmp_path):
    module = dataset("dsb2018", forged("dsb2018"), tmp_path)
    folders = sorted((module.root / "stage1_train").iterdir())
    grey = [f for f in folders if np.ptp(read_image(f / "images" / f"{f.name}.png"), 2).max() == 0]
    names = {record.source.split("/")[1] for record in module.records(module.root)}
    assert names == {folder.name for folder in folders} - {folder.name for folder in grey}


def test_dsb2018_refuses_missing_files_and_masks_of_another_size(forged_copy):
    module = forged_copy("dsb2018")
    record = next(module.records(module.root))
    masks = record.image.parent.parent / "masks"
    for number, path in enumerate(sorted(masks.iterdir())):
        write_image(path, np.full((100, 90 + (number == 1)), 255, np.uint8))
    assert_refused(module, LayoutError, masks.parent.name, "91x100")
    for path in sorted(masks.iterdir()):
        write_image(path, np.full((100, 90), 255, np.uint8))
    assert_refused(module, LayoutError, record.source, "90x100")
    shutil.rmtree(masks)
    assert_refused(module, LayoutError, f"{masks.parent.name}/masks")
    record.image.unlink()
    assert_refused(module, LayoutError, record.source)


# ---- GlaS ---------------------------------------------------------------------------------


def test_glas_reads_the_real_pair_and_its_patient(official):
    module = official("glas", target_mpp=0.0)
    (record,) = module.records(module.root)
    assert (record.split, record.group) == ("train", "patient 10")
    glands = read_mask(record.image.with_name("train_8_anno.bmp"))
    assert glands.max() == 17
    store = prepared(module)
    np.testing.assert_array_equal(store.images([0])[0], read_image(record.image)[:256, :256])
    np.testing.assert_array_equal(store.masks("glands", [0])[0], glands[:256, :256] > 0)


def test_glas_masks_of_0_and_255_mean_the_same_as_ids(official, tmp_path):
    module = official("glas")
    shutil.copytree(module.root, tmp_path / "raw")
    (path,) = (tmp_path / "raw").rglob("*_anno.bmp")
    ids = read_ids(path)
    assert ids.max() not in (1, 255)
    write_image(path, np.where(ids > 0, 255, 0).astype(np.uint8))
    copy = dataset("glas", tmp_path / "raw", tmp_path / "stores")
    masks = [next(m.records(m.root)).targets["glands"]() for m in (module, copy)]
    np.testing.assert_array_equal(*masks)


def test_glas_patients_span_the_official_split(forged, tmp_path):
    module = dataset("glas", forged("glas"), tmp_path)
    records = list(module.records(module.root))
    groups = {part: {r.group for r in records if r.split == part} for part in ("train", "test")}
    assert groups["test"] <= groups["train"]
    assert {r.split for r in records if "/test" in r.source} == {"test"}


def test_glas_reads_grades_in_either_order_of_columns(forged_copy):
    module = forged_copy("glas")
    before = [record.group for record in module.records(module.root)]
    table = next(module.root.rglob("Grade.csv"))
    rows = [line.split(",") for line in table.read_text().splitlines()]
    table.write_text("\n".join(",".join((row[1], row[0], row[2])) for row in rows))
    assert [record.group for record in module.records(module.root)] == before


def test_glas_refuses_missing_rows_partners_and_columns(forged_copy):
    module = forged_copy("glas")
    table = next(module.root.rglob("Grade.csv"))
    text = table.read_text()
    table.write_text(re.sub(r"train_2,.*\n", "", text))
    assert_refused(module, LayoutError, "train_2.bmp", "Grade.csv")
    table.write_text(text.replace("patient ID", "patient"))
    assert_refused(module, LayoutError, "Grade.csv", "patient ID")
    table.write_text(text)
    annotation = table.with_name("train_1_anno.bmp")
    write_image(annotation, np.zeros((10, 20), np.uint8))
    assert_refused(module, LayoutError, "train_1.bmp", "20x10")
    annotation.unlink()
    assert_refused(module, LayoutError, "train_1.bmp", "train_1_anno.bmp")
