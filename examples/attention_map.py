# Where a model looks: python attention_map.py RUN OUT.h5 VIDEO_ID PICTURE.png
from sys import argv, exit

import matplotlib.pyplot as plt

from nemo_pipeline import FaceDataset
from siam_model import explain, load

run, data, name, picture = argv[1:] if len(argv) == 5 else exit("give RUN OUT.h5 VIDEO_ID PICTURE.png")
model, video = load(run), FaceDataset(data)[name]
seen = model.predict(video.frames)
plt.imshow(video.frames[t := seen.temporal_weights.argmax()], cmap="gray")  # the frame that counts most
plt.imshow(explain.heat_map(seen.spatial_attention[t], model.config), alpha=0.4)
plt.savefig(picture)
