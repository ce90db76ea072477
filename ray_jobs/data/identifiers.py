"""Looking for patients' identifiers in DICOM headers. Findings name file, tag and keyword; never the value."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dhctl.ray_jobs.data.profile import (
    ATTRIBUTES,
    FLAGS,
    KEEPS_DATES,
    KEEPS_INSTITUTION,
    KEEPS_PRIVATE,
    Judge,
)

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

logging.getLogger("pydicom").addHandler(logging.NullHandler())  # else its remarks reach stderr, with what they quote

HEADER_BYTES = 2**18
"""Read first of each file; more where its header is longer."""

_SUFFIXES = {"dcm", "dicom", "ima"}
_MAGIC = slice(128, 132)
_DUMMY = re.compile(
    r"(anon(ymous|ymi[sz]ed)?)?(patient|subject|case|volunteer|phantom)?|removed|none|null|na|unknown|dummy|test|deid|"
    r"deidentified|pseudonym|x+"
)
"""What is written in place of a value; compared with its letters alone."""

_CODE = re.compile(r"(?=.*\d)[\w.\-]+")
"""A pseudonym: letters, digits and dashes without a space or a caret."""

_NUMBER = re.compile(r"\D{0,2}\d{6,}\D?")
"""As hospitals count."""

_REAL_IDENTIFIER = re.compile(r"\d{6,8}[-+ ]\d{3,5}|[A-Z]{6}\d{2}[A-Z]\d{2}[A-Z]\d{3}[A-Z]|.*[\^@ ].*", re.IGNORECASE)
"""A state's person numbers (birth date and a few digits; the Italian fiscal code), and whatever holds a caret, an at
sign or a space.
"""

_REMOVED = "identity removed"
"""The file says so itself: numbers in it are pseudonyms."""

_DUMMY_DATES = re.compile(r"(19000101|00010101)\d*")


@dataclass(frozen=True)
class Finding:
    """An attribute that must not be in a file that leaves its place."""

    file: str
    tag: str
    """Such as (0010,0010); empty where the file as a whole is meant."""
    keyword: str
    action: str
    """What the profile does to it: X remove, Z zero length or dummy, D dummy."""
    why: str


def may_be_dicom(key: str) -> bool:
    """Whether a file's name is one of DICOM's: by its ending, or without one (also named by an UID)."""
    ending = key.rsplit("/", 1)[-1].rpartition(".")
    return ending[2].lower() in _SUFFIXES or not ending[1] or ending[2].isdecimal()


def findings_in(key: str, header: bytes, complete: bool) -> list[Finding] | None:
    """What a file's first bytes hold; `complete` says that they are all of it.

    None where the header goes on beyond them: call again with more. A file that names itself DICOM and cannot be read
    is a finding, because nobody knows what is in it.
    """
    if header[_MAGIC] != b"DICM" and key.rsplit(".", 1)[-1].lower() not in _SUFFIXES:
        return []
    from pydicom import dcmread

    stream = io.BytesIO(header)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that break the standard, which are judged all the same
            dataset = dcmread(stream, stop_before_pixels=True)
            if not complete and stream.tell() >= len(header):
                return None
            if "SOPClassUID" not in dataset and "TransferSyntaxUID" not in dataset.file_meta:
                raise ValueError("no DICOM header")
            return list(_judged(key, dataset))
    except Exception as error:  # noqa: BLE001 - a damaged header can raise whatever a parser can
        why = f"it cannot be read as DICOM ({type(error).__name__}), so what it holds is not known"
        return [Finding(key, "", "unreadable", "", why)] if complete else None


def _judged(key: str, dataset: Dataset) -> Iterator[Finding]:
    options = _options(dataset)
    private = 0
    for element in dataset.iterall():
        if element.tag.is_private:
            private += 1
            continue
        why = _why(element, options)
        if why:
            attribute = ATTRIBUTES.get(element.keyword)
            tag = f"({element.tag.group:04X},{element.tag.element:04X})"
            yield Finding(key, tag, element.keyword, attribute.action if attribute else "", why)
    if private and KEEPS_PRIVATE not in options:
        why = f"{private} private attributes, whose meaning only their maker knows"
        yield Finding(key, "(odd groups)", "private", "X", why)


def _options(dataset: Dataset) -> set[str]:
    """What the file says of its own de-identification: codes of what was kept on purpose."""
    said = {str(item.get("CodeValue", "")) for item in dataset.get("DeidentificationMethodCodeSequence") or []}
    if dataset.get("LongitudinalTemporalInformationModified") in {"MODIFIED", "REMOVED"}:
        said |= KEEPS_DATES
    if dataset.get("PatientIdentityRemoved") == "YES":
        said.add(_REMOVED)
    return said


def _why(element: DataElement, options: set[str]) -> str:
    """A reason, or "" where the attribute is none of the table, is empty, or holds what may stay."""
    keyword = element.keyword
    if keyword in FLAGS:
        return FLAGS[keyword] if str(element.value).strip().upper() == "YES" else ""
    attribute = ATTRIBUTES.get(keyword)
    values = _values(element)
    if attribute is None or not values:
        return ""
    match attribute.judge:
        case Judge.NAME:
            return "" if all(_is_dummy(value) or _CODE.fullmatch(value) for value in values) else "can be a name"
        case Judge.IDENTIFIER:
            numbers = () if _REMOVED in options else filter(_NUMBER.fullmatch, values)
            real = [value for value in (*filter(_REAL_IDENTIFIER.fullmatch, values), *numbers) if not _is_dummy(value)]
            return "looks like an identifier" if real else ""
        case Judge.DATE:
            born = keyword == "PatientBirthDate"
            dummy = all(_DUMMY_DATES.fullmatch(value) for value in values)
            return "" if dummy or (options & KEEPS_DATES and not born) else "is a date of the patient"
        case Judge.INSTITUTION:
            return "" if KEEPS_INSTITUTION in options or all(map(_is_dummy, values)) else "names the institution"
        case Judge.ANY:
            return "" if all(map(_is_dummy, values)) else "must not be there"


def _values(element: DataElement) -> list[str]:
    """As texts, those that are not empty; a sequence is one value that says nothing of itself."""
    if element.VR == "SQ":
        return ["sequence"] if len(element.value) else []
    value = element.value
    several = value if element.VM > 1 else [value]
    return [text for text in (str(one).strip() for one in several if one is not None) if text.strip("^= ")]


def _is_dummy(value: str) -> bool:
    letters = re.sub(r"[^a-z]", "", value.lower())
    return bool(letters) and bool(_DUMMY.fullmatch(letters))
