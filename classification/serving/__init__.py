"""One HTTP application around models in OpenVINO's files; PyTorch is never imported here."""
