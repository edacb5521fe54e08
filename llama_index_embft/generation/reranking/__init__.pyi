from .samples import (
    CrossEncoderFinetuningDatasetSample as CrossEncoderFinetuningDatasetSample,
    dataset_to_samples as dataset_to_samples,
    samples_to_dataset as samples_to_dataset,
)
