"""What pages for people share: one style, one frame, figures and thumbnails that they carry."""
