"""The CT lung nodule job: find and outline nodules in chest CT."""
