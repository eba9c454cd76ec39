# Where a model looks, in the frame that counts most: python attention_map.py RUN OUT.h5 VIDEO_ID PICTURE.png
from sys import argv

import matplotlib.pyplot as plt

from nemo_pipeline import FaceDataset
from siam_model import explain, load

model, video = load(argv[1]), FaceDataset(argv[2])[argv[3]]
seen = model.predict(video.frames)  # .age, .temporal_weights (T,), .spatial_attention (T, 10, 10)
t = seen.temporal_weights.argmax()
plt.imshow(video.frames[t], cmap="gray")
plt.imshow(explain.heat_map(seen.spatial_attention[t], model.config), cmap="inferno", alpha=0.5)
plt.savefig(argv[4])  # it shows a face: keep it where others do not read
