"""Where the model's file lies: in the image, or in S3."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from classification.errors import UserError

SCHEME = "s3://"


def local_copy(model: str, folder: Path) -> Path:
    """Return the path of a model's file, which is fetched if it lies in S3.

    Args:
        model: a path, or s3://BUCKET/KEY; of an IR (.xml) the weights (.bin) beside it come too.
        folder: where fetched files go.

    Raises:
        UserError: there is no such object, or it may not be read.
    """
    if not model.startswith(SCHEME):
        return Path(model)
    bucket, _, key = model.removeprefix(SCHEME).partition("/")
    if not bucket or PurePosixPath(key).suffix not in (".xml", ".onnx"):
        raise UserError(f"MODEL: '{model}' is not s3://BUCKET/KEY of an .xml or .onnx file.")
    # Imported here: an image with the model in it starts a third of a second sooner without.
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    folder.mkdir(parents=True, exist_ok=True)
    suffixes = (".xml", ".bin") if key.endswith(".xml") else (".onnx",)
    client = boto3.client("s3")
    for suffix in suffixes:
        source = str(PurePosixPath(key).with_suffix(suffix))
        try:
            client.download_file(bucket, source, str(folder / f"model{suffix}"))
        except (BotoCoreError, ClientError) as error:
            raise UserError(f"MODEL: cannot read {SCHEME}{bucket}/{source}: {error}") from error
    return folder / f"model{suffixes[0]}"
