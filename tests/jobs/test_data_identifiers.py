"""Patients' identifiers in DICOM headers: named by file, tag and keyword, never by their value."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, FileDataset, config
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dhctl.ray_jobs.data.identifiers import Finding, findings_in, may_be_dicom
from dhctl.ray_jobs.data.profile import ATTRIBUTES, FLAGS


def header(padding: int = 0, **values: Any) -> bytes:
    """A file with these attributes and pixels behind them."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        if padding:
            dataset.TextValue = "x" * padding
        dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.SamplesPerPixel = 2, 2, 8, 1
        dataset.PixelData = b"\0" * 4
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
    finally:
        config.settings.writing_validation_mode = before
    return stream.getvalue()


def found(**values: Any) -> list[str]:
    findings = findings_in("a/1.dcm", header(**values), complete=True)
    assert findings is not None
    return [finding.keyword for finding in findings]


def code(value: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", "option"
    return [item]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", "Rossi^Maria"),
        ("PatientName", "Rossi"),
        ("PatientName", "Subject Rossi"),
        ("ReferringPhysicianName", "Bianchi^Carlo"),
        ("OperatorsName", "AB"),
        ("PatientID", "20031207"),
        ("PatientID", "RSSMRA80A41H501U"),
        ("PatientID", "19800101-1234"),
        ("PatientID", "Rossi Maria"),
        ("PatientID", "maria@hospital"),
        ("PatientBirthDate", "19620514"),
        ("AccessionNumber", "12"),
        ("StudyID", "4471234"),
        ("StudyDate", "20240102"),
        ("AcquisitionDateTime", "20240102101112"),
        ("InstitutionName", "Citta della Salute"),
        ("InstitutionAddress", "Corso 1"),
        ("PatientAddress", "Via 2"),
        ("OtherPatientIDs", "3"),
        ("PatientComments", "see letter"),
        ("BurnedInAnnotation", "YES"),
        ("RecognizableVisualFeatures", "YES"),
    ],
)
def test_what_leads_to_a_person_is_found(keyword: str, value: str) -> None:
    assert found(**{keyword: value}) == [keyword]


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", ""),
        ("PatientName", "^^"),
        ("PatientName", "Anonymous"),
        ("PatientName", "ANONYMIZED^PATIENT"),
        ("PatientName", "LIDC-IDRI-0001"),
        ("PatientID", "LIDC-IDRI-0001"),
        ("PatientID", "case_17"),
        ("PatientID", "removed"),
        ("PatientBirthDate", ""),
        ("PatientBirthDate", "19000101"),
        ("AccessionNumber", ""),
        ("StudyID", "1"),
        ("PatientSex", "F"),
        ("PatientAge", "061Y"),
        ("BurnedInAnnotation", "NO"),
        ("StudyInstanceUID", "1.2.3"),
        ("SeriesDescription", "thorax"),
    ],
)
def test_what_may_stay_is_no_finding(keyword: str, value: str) -> None:
    assert found(**{keyword: value}) == []


def test_a_name_within_a_sequence_is_found() -> None:
    item = Dataset()
    item.PatientName = "Rossi^Maria"
    assert found(ReferencedPatientSequence=[item]) == ["PatientName"]


def test_what_a_file_declares_to_have_kept_on_purpose_may_stay() -> None:
    dates = {"StudyDate": "20240102", "PatientBirthDate": "19620514"}
    assert found(**dates, LongitudinalTemporalInformationModified="MODIFIED") == ["PatientBirthDate"]
    assert found(StudyDate="20240102", DeidentificationMethodCodeSequence=code("113107")) == []
    assert found(InstitutionName="X-ray", DeidentificationMethodCodeSequence=code("113112")) == []
    assert found(PatientID="100012", PatientIdentityRemoved="YES") == []
    assert found(PatientID="RSSMRA80A41H501U", PatientIdentityRemoved="YES") == ["PatientID"]


def test_private_attributes_are_one_finding_unless_they_are_declared_safe() -> None:
    content = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    findings = findings_in("1.dcm", content, complete=True)
    assert findings is not None
    assert [finding.keyword for finding in findings].count("private") == 1
    assert found(DeidentificationMethodCodeSequence=code("113111")) == []


def test_a_finding_names_file_tag_and_keyword_and_never_the_value() -> None:
    (finding,) = findings_in("a/1.dcm", header(PatientName="Rossi^Maria"), complete=True) or ()
    assert finding == Finding("a/1.dcm", "(0010,0010)", "PatientName", "Z", "can be a name")
    content = header(**{k: "Rossi^Maria" for k, row in ATTRIBUTES.items() if row.action == "X" and "Name" in k})
    assert "Rossi" not in repr(findings_in("a/1.dcm", content, complete=True))


def test_a_header_longer_than_what_was_read_is_asked_for() -> None:
    content = header(padding=5000, PatientComments="late")
    assert findings_in("1.dcm", content[:4096], complete=False) is None
    assert findings_in("1.dcm", content, complete=True)


def test_pixels_are_not_read() -> None:
    content = header(PatientName="Rossi^Maria")
    assert findings_in("1.dcm", content[:-3], complete=False), "the header is whole, whatever the pixels are"


@pytest.mark.parametrize("content", [b"", b"no dicom at all", b"\0" * 128 + b"DICM" + b"\xff" * 64])
def test_what_calls_itself_dicom_and_cannot_be_read_is_a_finding(content: bytes) -> None:
    (finding,) = findings_in("1.dcm", content, complete=True) or ()
    assert finding.keyword == "unreadable"
    assert "not known" in finding.why


def test_a_file_without_an_ending_is_dicom_by_its_content() -> None:
    assert findings_in("IM0001", b"some notes", complete=True) == []
    assert findings_in("IM0001", header(PatientName="Rossi"), complete=True)


@pytest.mark.parametrize("key", ["a/1.dcm", "a/1.DCM", "IM0001", "a.b/IM0001", "1.2.840.10008.5"])
def test_names_of_dicom_files(key: str) -> None:
    assert may_be_dicom(key)


@pytest.mark.parametrize("key", ["a.tiff", "b/slide.mrxs", "c.csv", "v.nii.gz", "dataset.json"])
def test_names_of_other_files(key: str) -> None:
    assert not may_be_dicom(key)


def test_every_keyword_is_dicoms() -> None:
    from pydicom.datadict import tag_for_keyword

    assert [keyword for keyword in (*ATTRIBUTES, *FLAGS) if tag_for_keyword(keyword) is None] == []
