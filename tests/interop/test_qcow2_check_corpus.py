# SPDX-License-Identifier: BSD-3-Clause
"""`cohort check` and `qemu-img check` on each image of the corpus: both refuse it,
or find it sound, leaking, or corrupt. Where they differ it is written down."""
import json
import shutil

import pytest

from support.daemon import ROOT, cohort_binary
from support.images import run

CORPUS = ROOT / "tests/corpus/qcow2"
# name: (here, qemu-img)
DIFFERENT = {
    # A bitmap directory that is not valid: the rest can be checked all the same.
    **{name: ("corrupt", "refused") for name in [
        "bitmap_count_too_large", "bitmap_data_reserved", "bitmap_data_shared",
        "bitmap_directory_behind_end", "bitmap_directory_is_l1",
        "bitmap_extra_absurd", "bitmap_name_over_end", "bitmap_names_equal",
        "bitmap_table_absurd", "bitmap_table_is_l1",
        "snapshot_extra_absurd"]},
    # A bitmap that nobody can use, and that does no harm.
    **{name: ("sound", "refused") for name in [
        "bitmap_flags_reserved", "bitmap_granularity_absurd",
        "bitmap_granularity_one", "bitmap_kind_unknown"]},
    "bitmap_table_too_short": ("leaks", "refused"),
    # The data file is not needed to check the image.
    "data_file_itself": ("leaks", "refused"),
    "data_file_unnamed": ("leaks", "refused"),
    "sound_raw_data_file": ("sound", "refused"),
    # Headers that no image can have.
    "backing_name_with_nul": ("refused", "sound"),
    "bitmaps_bit_alone": ("refused", "sound"),
    "header_length_odd": ("refused", "sound"),
    "l1_on_header": ("refused", "corrupt"),
    "refcount_table_none": ("refused", "corrupt"),
    # An empty file is an empty raw image.
    "empty": ("sound", "refused"),
    # There is no table at offset 0; qemu-img reads the header as one.
    "l1_entry_owns_nothing": ("leaks", "corrupt"),
    # A bit that is reserved in version 2.
    "v2_with_zero_flag": ("corrupt", "sound"),
}


def verdict(result):
    try:
        found = json.loads(result.stdout)
    except ValueError:
        assert result.returncode != 0
        return "refused", None
    if found.get("corruptions") or found.get("check-errors"):
        return "corrupt", None
    leaks = found.get("leaks", 0)
    return ("leaks" if leaks else "sound"), leaks


@pytest.mark.parametrize("name", sorted(
    path.stem for path in CORPUS.iterdir()))
def test_both_checks_agree(name, tmp_path):
    """Alone: qemu-img opens a backing file that is the image itself for ever."""
    path = tmp_path / f"{name}.qcow2"
    shutil.copy(CORPUS / path.name, path)
    here = verdict(run(cohort_binary(), "check", "--json", path, check=False))
    there = verdict(run("qemu-img", "check", "--output=json", "json:" +
                        json.dumps({"driver": "qcow2", "backing": None,
                                    "file": {"driver": "file",
                                             "filename": str(path)}}),
                        check=False))
    if name in DIFFERENT:
        assert (here[0], there[0]) == DIFFERENT[name]
    else:
        assert here == there
