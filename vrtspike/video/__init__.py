"""Video and image files: frames in, frames out, sound."""
