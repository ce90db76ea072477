"""Grading of prostate biopsies (ISUP 0-5) from whole slides: prepare, train, evaluate."""
