"""Attributes that the basic de-identification profile wants away (DICOM PS3.15, table E.1-1), and how each is judged.

A choice: what names or leads to a person, an institution, or a day. Not judged are UIDs (they must be kept for studies
to hold together), devices, times of day, and descriptions of examinations; docs/data.md says so to data managers.
Actions are the table's: X remove, Z zero length or dummy, D dummy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Judge(StrEnum):
    """When a value counts as a finding."""

    ANY = "any value"
    NAME = "a value that can be a person's name"
    IDENTIFIER = "a value that looks like an identifier of a hospital or a state"
    DATE = "a date, unless the file says that dates are shifted"
    INSTITUTION = "any value, unless the file says that it is kept on purpose"


@dataclass(frozen=True)
class Attribute:
    """A row of the table."""

    action: str
    judge: Judge


def _rows(action: str, judge: Judge, keywords: str) -> dict[str, Attribute]:
    return {keyword: Attribute(action, judge) for keyword in keywords.split()}


ATTRIBUTES: dict[str, Attribute] = {
    **_rows("Z", Judge.NAME, "PatientName ReferringPhysicianName ConsultingPhysicianName"),
    **_rows("Z/D", Judge.NAME, "ContentCreatorName"),
    **_rows("D", Judge.NAME, "PersonName VerifyingObserverName"),
    **_rows("X/Z/D", Judge.NAME, "OperatorsName"),
    **_rows("X/Z", Judge.NAME, "ReviewerName"),
    **_rows(
        "X",
        Judge.NAME,
        "HumanPerformerName NameOfPhysiciansReadingStudy NamesOfIntendedRecipientsOfResults OrderEnteredBy "
        "OtherPatientNames PatientBirthName PatientMotherBirthName PerformingPhysicianName PhysiciansOfRecord "
        "RequestingPhysician ResponsiblePerson ScheduledPerformingPhysicianName",
    ),
    **_rows("Z/D", Judge.IDENTIFIER, "PatientID"),
    **_rows("D", Judge.IDENTIFIER, "ClinicalTrialSubjectID ContainerIdentifier SpecimenIdentifier"),
    **_rows(
        "Z",
        Judge.IDENTIFIER,
        "FillerOrderNumberImagingServiceRequest PlacerOrderNumberImagingServiceRequest StudyID",
    ),
    **_rows("Z", Judge.ANY, "AccessionNumber"),
    **_rows("Z", Judge.DATE, "PatientBirthDate StudyDate"),
    **_rows("X/D", Judge.DATE, "SeriesDate"),
    **_rows("X/Z", Judge.DATE, "AcquisitionDate"),
    **_rows("Z/D", Judge.DATE, "ContentDate"),
    **_rows("X/Z/D", Judge.DATE, "AcquisitionDateTime"),
    **_rows("X", Judge.DATE, "AdmittingDate"),
    **_rows("X/Z/D", Judge.INSTITUTION, "InstitutionCodeSequence InstitutionName"),
    **_rows("X", Judge.INSTITUTION, "InstitutionAddress InstitutionalDepartmentName"),
    **_rows("X/Z", Judge.ANY, "BarcodeValue LabelText"),
    **_rows(
        "X",
        Judge.ANY,
        "AdditionalPatientHistory AdmissionID CountryOfResidence CurrentPatientLocation ImageComments "
        "InsurancePlanIdentification IssuerOfPatientID MedicalRecordLocator MilitaryRank Occupation "
        "OrderCallbackPhoneNumber OtherPatientIDs OtherPatientIDsSequence PatientAddress PatientBirthTime "
        "PatientComments PatientInstitutionResidence PatientTelecomInformation PatientTelephoneNumbers "
        "PerformingPhysicianIdentificationSequence PersonAddress PersonTelephoneNumbers "
        "PhysiciansOfRecordIdentificationSequence PhysiciansReadingStudyIdentificationSequence "
        "ReferencedPatientPhotoSequence ReferringPhysicianAddress ReferringPhysicianIdentificationSequence "
        "ReferringPhysicianTelephoneNumbers RegionOfResidence ResponsibleOrganization ServiceEpisodeID "
        "SpecimenAccessionNumber StudyComments",
    ),
}
"""By keyword."""

FLAGS = {
    "BurnedInAnnotation": "the picture itself has text burned into it",
    "RecognizableVisualFeatures": "a face may be recognised in the picture",
}
"""Attributes that are findings when they say YES: no tag tells what the pixels show."""

KEEPS_DATES = {"113106", "113107"}
KEEPS_PRIVATE = "113111"
KEEPS_INSTITUTION = "113112"
"""Codes of DeidentificationMethodCodeSequence (CID 7050): options of the profile that the file's maker chose."""
