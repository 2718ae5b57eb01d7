"""From files on a disk to uint8 batches in memory."""
