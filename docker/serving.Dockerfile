# docker build -f docker/serving.Dockerfile -t classifier .
# docker run --rm -p 8000:8000 -v "$PWD/my_model/export:/models:ro" classifier
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY constraints.txt docker/serving-requirements.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt --requirement serving-requirements.txt
COPY setup.py pyproject.toml ./
COPY classification classification
RUN pip install --no-cache-dir --no-deps .

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 service
USER 1000
EXPOSE 8000
HEALTHCHECK --start-period=30s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
# Inside of a container 0.0.0.0 is what `docker run -p` publishes, and no more.
ENTRYPOINT ["python", "-m", "classification.serve", "--host", "0.0.0.0"]
CMD ["--load-weights", "/models/model.xml"]
