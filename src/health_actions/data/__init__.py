"""From video files to frames, splits and transforms."""
