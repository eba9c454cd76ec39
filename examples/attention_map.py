# Where a model looks: python attention_map.py RUN OUT.h5 VIDEO_ID PICTURE.png
from sys import argv

import matplotlib.pyplot as plt

from nemo_pipeline import FaceDataset
from siam_model import explain, load

model, video = load(argv[1]), FaceDataset(argv[2])[argv[3]]
seen = model.predict(video.frames)
t = seen.temporal_weights.argmax()  # the frame that counts most
plt.imshow(video.frames[t], cmap="gray")
plt.imshow(explain.heat_map(seen.spatial_attention[t], model.config), alpha=0.4)
plt.savefig(argv[4])
