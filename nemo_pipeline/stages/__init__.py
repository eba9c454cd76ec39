"""The stages of one video, in order: decode, landmarks, track, gaps, smooth, warp, quality."""
