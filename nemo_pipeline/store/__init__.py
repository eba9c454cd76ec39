"""out.h5: its format, writer and reader. Needs numpy and h5py alone."""
