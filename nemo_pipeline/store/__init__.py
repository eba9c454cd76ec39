"""out.h5: its format, writer and reader. Needs numpy and h5py alone."""

from nemo_pipeline.store.reader import FaceDataset, FaceVideo
from nemo_pipeline.store.write import write_dataset

__all__ = ["FaceDataset", "FaceVideo", "write_dataset"]
